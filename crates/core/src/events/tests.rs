use super::*;

const SMALL: EventLimits = EventLimits { segment_bytes: 400, segments: 3, backlog_events: 4 };

fn occurrence(action: &str) -> Occurrence {
    Occurrence { kind: "container", action: action.to_owned(), actor_id: "c1".to_owned(), ..Default::default() }
}

fn add(log: &EventLog, action: &str) -> u64 {
    let (event, kept) = log.append(occurrence(action));
    kept.unwrap();
    event.sequence
}

fn kept(log: &EventLog, origin: Origin) -> Vec<u64> {
    let mut subscription = log.subscribe(origin);
    std::iter::from_fn(|| subscription.next_kept()).map(|event| event.sequence).collect()
}

/// S-120: numbers go on where they ended, through a restart and a line torn by a crash.
#[test]
fn s120_sequence_survives_restart_and_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let log = EventLog::open(dir.path(), EventLimits::default()).unwrap();
    assert_eq!((add(&log, "create"), add(&log, "start"), add(&log, "die")), (1, 2, 3));
    drop(log);
    let file = dir.path().join(format!("{:020}.jsonl", 1));
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.truncate(bytes.len() - 5);
    std::fs::write(&file, &bytes).unwrap();

    let log = EventLog::open(dir.path(), EventLimits::default()).unwrap();
    assert_eq!(kept(&log, Origin::After(0)), [1, 2]);
    assert_eq!(add(&log, "die"), 3);
    drop(log);
    let log = EventLog::open(dir.path(), EventLimits::default()).unwrap();
    assert_eq!(kept(&log, Origin::After(1)), [2, 3]);
}

#[test]
fn size_is_bounded_and_newest_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let log = EventLog::open(dir.path(), SMALL).unwrap();
    for _ in 0..100 {
        add(&log, "kill");
    }
    let files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).collect();
    assert!(files.len() <= 3 && files.iter().sum::<u64>() <= 3 * 600, "{files:?}");
    let all = kept(&log, Origin::After(0));
    assert_eq!(all.last(), Some(&100));
    assert!(all.windows(2).all(|pair| pair[1] == pair[0] + 1), "{all:?}");
    assert_eq!(kept(&log, Origin::After(98)), [99, 100]);
    assert_eq!(kept(&log, Origin::After(100)), [0u64; 0]);
    drop(log);
    let log = EventLog::open(dir.path(), SMALL).unwrap();
    assert_eq!(log.last_sequence(), 100);
}

#[test]
fn since_takes_the_time() {
    let dir = tempfile::tempdir().unwrap();
    let log = EventLog::open(dir.path(), EventLimits::default()).unwrap();
    add(&log, "create");
    let (second, _) = log.append(occurrence("start"));
    assert!(kept(&log, Origin::Since(second.time)).contains(&2));
    assert_eq!(kept(&log, Origin::Since(Timestamp(i64::MAX))), [0u64; 0]);
    assert_eq!(kept(&log, Origin::Now), [0u64; 0]);
}

/// S-121: two readers see the same sequence; a late one resumes from its cursor into the live stream without gap or repetition.
#[tokio::test(flavor = "current_thread")]
async fn s121_replay_then_live() {
    let dir = tempfile::tempdir().unwrap();
    let log = EventLog::open(dir.path(), EventLimits::default()).unwrap();
    for _ in 0..3 {
        add(&log, "create");
    }
    let mut late = log.subscribe(Origin::After(1));
    let mut live = log.subscribe(Origin::Now);
    add(&log, "start");
    add(&log, "die");
    for expect in [2, 3, 4, 5] {
        assert_eq!(late.next().await.unwrap().sequence, expect);
    }
    for expect in [4, 5] {
        assert_eq!(live.next().await.unwrap().sequence, expect);
    }
}

/// A reader that lags is closed with a clear end and can resume exactly where it was.
#[tokio::test(flavor = "current_thread")]
async fn overrun_is_told_never_silent() {
    let dir = tempfile::tempdir().unwrap();
    let log = EventLog::open(dir.path(), EventLimits { backlog_events: 4, ..EventLimits::default() }).unwrap();
    let mut slow = log.subscribe(Origin::Now);
    for _ in 0..10 {
        add(&log, "kill");
    }
    for expect in 1..=4 {
        assert_eq!(slow.next().await.unwrap().sequence, expect);
    }
    assert_eq!(slow.next().await, Err(Overrun { after_sequence: 4 }));
    assert_eq!(kept(&log, Origin::After(4)), [5, 6, 7, 8, 9, 10]);
}
