# /init of a guest that does nothing: what a bare kernel costs is measured with it. No C library, whose start would be
# counted too. It leaves the guest once (CPUID always does), so that a trace shows the moment, says so in the kernel's log
# (critical, so that it reaches the console), and sleeps. Given an argument it restarts the guest instead, so that a clock
# shows the moment.
    .globl _start
_start:
    xorl %eax, %eax
    cpuid
    cmpq $1, (%rsp)             # argc
    jg restart
    movl $1, %eax               # write(1, line, length)
    movl $1, %edi
    leaq line(%rip), %rsi
    movl $(end - line), %edx
    syscall
sleep:
    movl $34, %eax              # pause()
    syscall
    jmp sleep
restart:
    movl $169, %eax             # reboot(LINUX_REBOOT_CMD_RESTART)
    movl $0xfee1dead, %edi
    movl $0x28121969, %esi
    movl $0x01234567, %edx
    syscall
    jmp sleep
line:
    .ascii "<2>init sleeps\n"
end:
    .section .note.GNU-stack, "", @progbits
