//! `execve(2)` with arguments and environment of one's own.
#![allow(unsafe_code, reason = "arrays of C pointers")]

use std::ffi::{CStr, CString};

use rustix::io::Errno;

/// Replaces this process's program; returns only why that failed.
pub(crate) fn execve(program: &CStr, arguments: &[CString], environment: &[CString]) -> Errno {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: `program` is a C string; both arrays hold C strings that outlive the call, and end in null.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    super::fds::last_errno()
}
