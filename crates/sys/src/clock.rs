//! The monotonic clock as a number. rustix would read it without a system call as well, but refuses to start on a kernel whose vDSO
//! lacks `getcpu`, as User Mode Linux since 7.0 (rustix 1.1); the C library falls back.
#![expect(unsafe_code, reason = "clock_gettime(2) by the C library")]

/// `CLOCK_MONOTONIC` in nanoseconds: one clock for all processes of the host.
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec for the call to fill; CLOCK_MONOTONIC exists on every Linux, so it cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    let (seconds, nanoseconds) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_goes_forward_beside_the_standard_librarys() {
        let (standard, first) = (std::time::Instant::now(), super::monotonic_ns());
        assert!(first > 0);
        let second = super::monotonic_ns();
        let bound = u64::try_from(standard.elapsed().as_nanos()).unwrap();
        assert!(second >= first && second - first <= bound, "{first} {second} {bound}");
    }
}
