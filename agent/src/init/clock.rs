//! Clocks.

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

/// Nanoseconds in a second.
const NANOS: i64 = 1_000_000_000;

/// Microseconds since the kernel started.
pub(crate) fn boottime_us() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec * 1_000_000 + now.tv_nsec / 1000).unwrap_or(0)
}

/// Nanoseconds since 1970.
pub(crate) fn realtime_ns() -> i64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec.saturating_mul(NANOS).saturating_add(now.tv_nsec)
}

/// Sets the wall clock.
pub(crate) fn set_realtime_ns(ns: i64) -> std::io::Result<()> {
    let time = Timespec { tv_sec: ns.div_euclid(NANOS), tv_nsec: ns.rem_euclid(NANOS) };
    Ok(clock_settime(ClockId::Realtime, time)?)
}
