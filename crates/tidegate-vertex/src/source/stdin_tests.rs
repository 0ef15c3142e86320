//! A stream that comes in pieces.

use std::{
    sync::mpsc::{Receiver, SyncSender, channel, sync_channel},
    time::{Duration, Instant},
};

use super::*;

const BUDGET: Budget = Budget { records: 100, bytes: 1 << 20, value: 1 << 20 };

/// What was put in, piece by piece, then an end.
struct Pieces(Receiver<Vec<u8>>);

impl Read for Pieces {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let Ok(piece) = self.0.recv() else { return Ok(0) };
        room[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}

/// A stream, where to put its pieces, and a word for each time it woke somebody.
fn stream(framing: Framing) -> (Stream, SyncSender<Vec<u8>>, Receiver<()>) {
    let (put, pieces) = sync_channel(0);
    let (wake, woken) = channel();
    let waker = Waker::new(move || wake.send(()).unwrap());
    (Stream::of(Pieces(pieces), framing, waker).unwrap(), put, woken)
}

/// Everything up to the end.
fn read(stream: &mut Stream, woken: &Receiver<()>) -> Result<Vec<Input>, SourceError> {
    let mut inputs = Vec::new();
    loop {
        match stream.poll(PartitionId(0), BUDGET)? {
            Polled::Inputs(more) => inputs.extend(more),
            Polled::Idle => woken.recv_timeout(Duration::from_secs(60)).unwrap(),
            unfit @ Polled::Unfit(..) => panic!("{unfit:?}"),
            Polled::End => return Ok(inputs),
        }
    }
}

fn values(inputs: &[Input]) -> Vec<&str> {
    inputs.iter().map(|input| str::from_utf8(&input.record.value).unwrap()).collect()
}

/// Rules: VX-793, VX-830.
#[test]
fn records_come_as_they_are_written_and_their_positions_are_of_this_run() {
    let (mut first, put, woken) = stream(Framing::Ndjson);
    assert_eq!(first.poll(PartitionId(0), BUDGET).unwrap(), Polled::Idle);
    put.send(b"one\ntw".to_vec()).unwrap();
    put.send(b"o\nlast".to_vec()).unwrap();
    drop(put);
    let inputs = read(&mut first, &woken).unwrap();
    assert_eq!(values(&inputs), ["one", "two", "last"]);
    let begin = first.position - 12;
    assert_eq!(inputs.iter().map(|input| input.position.0 - begin).collect::<Vec<_>>(), [0, 4, 8]);
    assert!(inputs.windows(2).all(|pair| pair[0].next == pair[1].position));
    let (mut second, ..) = stream(Framing::Ndjson);
    assert_ne!(second.open(PartitionId(0), None).unwrap(), Position(begin));
    assert_eq!(first.abilities().positions, Positions::PerRun);
}

/// Rules: VX-831.
#[test]
fn a_record_may_be_longer_than_what_is_read_ahead() {
    let (mut long, put, woken) = stream(Framing::Length);
    let feed = std::thread::spawn(move || {
        put.send(600_000u32.to_le_bytes().to_vec()).unwrap();
        (0..6).for_each(|_| put.send(vec![b'x'; 100_000]).unwrap());
    });
    let inputs = read(&mut long, &woken).unwrap();
    assert_eq!(inputs[0].record.value.len(), 600_000);
    feed.join().unwrap();
}

/// What nobody takes is not read: the thread has the bound and one piece more at most.
/// Rules: VX-310, VX-831.
#[test]
fn no_more_is_read_ahead_than_the_bound() {
    const PIECE: usize = 100_000;
    let (stream, put, _woken) = stream(Framing::Length);
    // Ends when nobody reads any more.
    let feed = std::thread::spawn(move || (0..100).take_while(|_| put.send(vec![0; PIECE]).is_ok()).count());
    let held = || stream.shared.lock().bytes.len();
    let give_up = Instant::now() + Duration::from_secs(60);
    while held() < AHEAD {
        assert!(Instant::now() < give_up, "never read");
        std::thread::yield_now();
    }
    // Time for what must not happen.
    let later = Instant::now() + Duration::from_millis(10);
    while Instant::now() < later {
        assert!(held() < AHEAD + PIECE && !feed.is_finished(), "{} bytes ahead", held());
    }
    drop(stream);
    assert!(feed.join().unwrap() <= AHEAD / PIECE + 2);
}

#[test]
fn a_record_inside_which_the_stream_ends_is_for_the_dead_letters() {
    let (mut stream, put, woken) = stream(Framing::Length);
    put.send(b"\x02\0\0\0ok\x05\0\0\0no".to_vec()).unwrap();
    drop(put);
    let mut polled = Vec::new();
    while polled.last() != Some(&Polled::End) {
        match stream.poll(PartitionId(0), BUDGET).unwrap() {
            Polled::Idle => woken.recv_timeout(Duration::from_secs(60)).unwrap(),
            other => polled.push(other),
        }
    }
    let [Polled::Inputs(inputs), Polled::Unfit(input, fault), Polled::End] = &polled[..] else {
        panic!("{polled:?}")
    };
    assert_eq!(values(inputs), ["ok"]);
    assert_eq!((input.position, &input.record.value[..]), (inputs[0].next, &b"\x05\0\0\0no"[..]));
    assert!(fault.contains("6 bytes of 9"), "{fault}");
}
