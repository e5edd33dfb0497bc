//! The rate of this machine's time stamp counter, which a guest under TCG reads one to one.
//!
//! A guest that must find the rate by itself times it against an emulated PIT; on a busy host that fails, and the guest
//! falls back to a clock of 10 ms steps. Telling it saves the attempts too.
#![allow(unsafe_code, reason = "RDTSC has no safe wrapper")]

use std::time::{Duration, Instant};

/// How long the counter is watched: two readings that are off by 50 ns each then err by 25 parts in a million.
const WATCH: Duration = Duration::from_millis(4);
/// Readings of which the least disturbed counts.
const READINGS: usize = 16;
/// What a time stamp counter can run at, in kHz.
const PLAUSIBLE_KHZ: std::ops::RangeInclusive<u128> = 100_000..=10_000_000;

/// Kernel parameter that tells the rate, `None` if it could not be measured.
pub(super) fn kernel_parameter() -> Option<String> {
    khz().map(|khz| format!("tsc_early_khz={khz}"))
}

fn khz() -> Option<u128> {
    let (began, first) = reading()?;
    std::thread::sleep(WATCH);
    let (ended, last) = reading()?;
    let elapsed_ns = ended.duration_since(began).as_nanos();
    let ticks = u128::from(last.checked_sub(first)?);
    let khz = (ticks * 1_000_000).checked_div(elapsed_ns)?;
    PLAUSIBLE_KHZ.contains(&khz).then_some(khz)
}

/// The counter at a moment: of several readings, the one between the two closest looks at the clock.
fn reading() -> Option<(Instant, u64)> {
    let readings = (0..READINGS).map(|_| {
        let before = Instant::now();
        // SAFETY: RDTSC exists on every x86-64 processor and touches nothing but registers.
        let ticks = unsafe { std::arch::x86_64::_rdtsc() };
        let gap = before.elapsed();
        (gap, before + gap / 2, ticks)
    });
    readings.min_by_key(|(gap, ..)| *gap).map(|(_, at, ticks)| (at, ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree() {
        let (first, second) = (khz().unwrap(), khz().unwrap());
        assert!(first.abs_diff(second) < first / 1000, "{first} kHz, then {second} kHz");
    }
}
