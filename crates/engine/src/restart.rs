//! Restart policies (pure): whether an ended container starts again, and when.

use std::time::Duration;

use crate::config::RestartPolicy;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// A run of this length counts as a success: the delay starts anew.
const STEADY: Duration = Duration::from_secs(10);

/// How a run ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) exit_code: i32,
    pub(crate) ran_for: Duration,
    pub(crate) was_stopped_by_user: bool,
    /// Restarts so far.
    pub(crate) restart_count: u32,
}

/// The delay before the next start; `None`: it stays down. `last_delay` is that of the restart before, zero when there was none.
pub(crate) fn decide(policy: RestartPolicy, ended: Ended, last_delay: Duration) -> Option<Duration> {
    let wants = match policy {
        RestartPolicy::No => false,
        RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        RestartPolicy::OnFailure(max) => ended.exit_code != 0 && (max == 0 || ended.restart_count < max),
    };
    if !wants || ended.was_stopped_by_user {
        return None;
    }
    let is_fresh = last_delay.is_zero() || ended.ran_for >= STEADY;
    Some(if is_fresh { FIRST_DELAY } else { (last_delay * 2).min(LONGEST_DELAY) })
}

/// Whether a container that is down when the daemon starts is started.
pub(crate) fn starts_with_daemon(
    policy: RestartPolicy,
    was_stopped_by_user: bool,
    exit_code: i32,
    was_alive: bool,
) -> bool {
    match policy {
        RestartPolicy::No => false,
        RestartPolicy::Always => true,
        RestartPolicy::UnlessStopped => !was_stopped_by_user,
        RestartPolicy::OnFailure(_) => was_alive && exit_code != 0 && !was_stopped_by_user,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(exit_code: i32) -> Ended {
        Ended { exit_code, ran_for: Duration::from_millis(5), was_stopped_by_user: false, restart_count: 0 }
    }

    #[test]
    fn back_off_doubles_to_a_minute_and_resets_after_ten_seconds() {
        let mut delay = Duration::ZERO;
        let mut delays = Vec::new();
        for _ in 0..12 {
            delay = decide(RestartPolicy::Always, ended(1), delay).unwrap();
            delays.push(delay.as_millis());
        }
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000]);
        let steady = Ended { ran_for: STEADY, ..ended(1) };
        assert_eq!(decide(RestartPolicy::Always, steady, delay), Some(FIRST_DELAY));
    }

    #[test]
    fn policies() {
        let d = Duration::ZERO;
        assert_eq!(decide(RestartPolicy::No, ended(1), d), None);
        assert_eq!(decide(RestartPolicy::OnFailure(0), ended(0), d), None);
        assert!(decide(RestartPolicy::OnFailure(0), ended(1), d).is_some());
        assert!(decide(RestartPolicy::OnFailure(2), Ended { restart_count: 1, ..ended(1) }, d).is_some());
        assert_eq!(decide(RestartPolicy::OnFailure(2), Ended { restart_count: 2, ..ended(1) }, d), None);
        for policy in [RestartPolicy::Always, RestartPolicy::UnlessStopped] {
            assert!(decide(policy, ended(0), d).is_some());
            assert_eq!(decide(policy, Ended { was_stopped_by_user: true, ..ended(0) }, d), None, "stop stops");
        }
        assert!(starts_with_daemon(RestartPolicy::Always, true, 0, false), "always comes back with the daemon");
        assert!(!starts_with_daemon(RestartPolicy::UnlessStopped, true, 0, false));
        assert!(starts_with_daemon(RestartPolicy::UnlessStopped, false, 0, true));
        assert!(!starts_with_daemon(RestartPolicy::OnFailure(3), false, 0, true));
    }
}
