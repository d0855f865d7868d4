use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream as Std;
use std::task::Waker;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

fn pair() -> (Connection, Std) {
    let (ours, theirs) = Std::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (Connection::new(UnixStream::from_std(ours).unwrap()).unwrap(), theirs)
}

fn flush(connection: &mut Connection) -> Poll<io::Result<()>> {
    Pin::new(connection).poll_flush(&mut Context::from_waker(Waker::noop()))
}

/// Flushes only ask, however often, until a turn of the event loop is over; what came until then goes out in one piece.
#[tokio::test]
async fn pieces_of_one_turn_leave_together() {
    let (mut ours, mut theirs) = pair();
    theirs.set_nonblocking(true).unwrap();
    let mut taken = [0; 64];
    for round in 0..3 {
        ours.write_all(b"pong ").await.unwrap();
        for _ in 0..3 {
            assert!(matches!(flush(&mut ours), Poll::Ready(Ok(()))));
        }
        assert_eq!(theirs.read(&mut taken).unwrap_err().kind(), io::ErrorKind::WouldBlock, "{round}");
        ours.write_all(b"answer").await.unwrap();
        while !ours.beat.has_come.load(Ordering::Acquire) {
            tokio::task::yield_now().await;
        }
        assert!(matches!(flush(&mut ours), Poll::Ready(Ok(()))));
        assert_eq!((theirs.read(&mut taken).unwrap(), &taken[..11]), (11, &b"pong answer"[..]), "{round}");
    }
    ours.write_all(b"last").await.unwrap();
    drop(ours);
    assert_eq!((theirs.read(&mut taken).unwrap(), &taken[..4]), (4, &b"last"[..]));
}

/// Whoever asks for a flush is woken when it can be done, without asking again.
#[tokio::test]
async fn a_flush_wakes_the_connection() {
    let (mut ours, mut theirs) = pair();
    ours.write_all(b"x").await.unwrap();
    let mut is_first = true;
    std::future::poll_fn(|context| {
        assert!(matches!(Pin::new(&mut ours).poll_flush(context), Poll::Ready(Ok(()))));
        if std::mem::take(&mut is_first) { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 1);
}

/// Whoever reads slowly gets everything, and what waits for it here stays within the bound.
#[tokio::test]
async fn a_slow_reader_gets_everything() {
    let (mut ours, mut theirs) = pair();
    let sent: Vec<u8> = (0..4_000_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    let expected = sent.clone();
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        let mut piece = [0; 3001];
        while let n @ 1.. = theirs.read(&mut piece).unwrap() {
            got.extend_from_slice(&piece[..n]);
        }
        (got, theirs)
    });
    for piece in sent.chunks(16_393) {
        ours.write_all(piece).await.unwrap();
        assert!(ours.gathered.len() <= GATHERED_BYTES_MAX + 16_393, "{}", ours.gathered.len());
        ours.flush().await.unwrap();
    }
    ours.shutdown().await.unwrap();
    let (got, mut theirs) = tokio::task::spawn_blocking(|| reader.join().unwrap()).await.unwrap();
    assert!(got == expected, "{} of {} bytes", got.len(), expected.len());
    assert!(ours.full.is_none() && ours.gathered.is_empty());

    theirs.write_all(b"still").unwrap();
    drop(theirs);
    let mut last = String::new();
    ours.read_to_string(&mut last).await.unwrap();
    assert_eq!(last, "still");
}

#[tokio::test]
async fn a_client_that_has_gone_is_an_error() {
    let (mut ours, theirs) = pair();
    drop(theirs);
    ours.write_all(&[7; FLUSH_BYTES]).await.unwrap();
    assert_eq!(ours.flush().await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}
