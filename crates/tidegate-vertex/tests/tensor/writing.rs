//! The sink.

use tidegate_tensor::{
    client::{Client, Consumer, ConsumerConfig, ProducerConfig, PublishError, ReadOutcome},
    frame::FrameMeta,
    tensor::{Dtype, MajorOrder, TensorLayout},
};
use tidegate_vertex::{fence::Reason, sink::SinkError, source::Source};

use crate::stage::*;

/// Somebody who knows nothing of vertices.
struct Plain {
    consumer: Consumer,
    _client: Client,
}

impl Plain {
    fn new(stage: &Stage) -> Self {
        let client = stage.client();
        let consumer = client.add_consumer(ConsumerConfig::new(CAM)).unwrap().wait(PATIENCE).unwrap();
        let mut plain = Self { consumer, _client: client };
        until("it is mapped", || {
            plain.consumer.poll(0, &mut |_| {}).unwrap();
            matches!(plain.consumer.state(), tidegate_tensor::client::MappingState::Mapped(_))
        });
        plain
    }

    /// Numbers and shapes of what is there until frame `last` came, and how many frames were lost before it.
    fn read(&mut self, last: u32) -> (Vec<u32>, u64) {
        let (mut read, mut lost) = (Vec::new(), 0);
        until("the last one", || {
            let polled = self.consumer.poll_outcomes(10, &mut |outcome| match outcome {
                ReadOutcome::Frame(frame) => {
                    let layout = frame.layout().unwrap();
                    assert_eq!((layout.dtype(), layout.shape()), (Dtype::Uint8, &[2, 2][..]));
                    let mut bytes = [0; 4];
                    frame.payload().sub(0..4).unwrap().copy_to(&mut bytes).unwrap();
                    read.push(u32::from_le_bytes(bytes));
                }
                ReadOutcome::DroppedGap { frames } => lost += frames,
                other => panic!("{other:?}"),
            });
            polled.unwrap();
            read.last() == Some(&last)
        });
        (read, lost)
    }
}

/// Any reader finds a tensor; another vertex finds all of the output, and nothing of a session that was over.
/// Rules: VX-751, VX-851.
#[test]
fn what_a_sink_publishes_is_a_tensor_for_all_and_an_output_for_a_vertex() {
    let stage = Stage::new();
    let mut writing = stage.writing(FOUR).unwrap();
    let mut plain = Plain::new(&stage);
    let mut reading = stage.reading("format = \"output\"");
    reading.source.open(ONLY, None).unwrap();
    let published = writing.publish(&outputs(0..2)).unwrap();
    assert_eq!((published.through, published.held), (2, None));
    // A later session, and then a write of the first one that comes late.
    for (generation, number) in [(2, 2), (1, 3), (2, 4)] {
        writing.generation = generation;
        writing.publish(&outputs(number..number + 1)).unwrap();
    }
    assert_eq!(plain.read(4), (vec![0, 1, 2, 3, 4], 0));
    let inputs = reading.take(4);
    assert_eq!(numbers(&inputs), [0, 1, 2, 4]);
    assert_eq!(inputs[3].record, outputs(4..5)[0].record);
    assert_eq!((reading.source.left_out(), reading.source.lost()), (1, 0));
}

/// Rules: VX-723, VX-851.
#[test]
fn nothing_is_published_after_a_revoke_and_readers_count_the_slot_as_a_gap() {
    let stage = Stage::new();
    let mut writing = stage.writing(FOUR).unwrap();
    let mut plain = Plain::new(&stage);
    writing.publish(&outputs(0..2)).unwrap();
    assert_eq!(plain.read(1), (vec![0, 1], 0));
    writing.guard.revoke(Reason::Operator);
    assert!(matches!(writing.publish(&outputs(2..3)), Err(SinkError::Fenced(_))));
    (writing.guard, writing.generation) = (guard(2), 2);
    writing.publish(&outputs(3..4)).unwrap();
    // The slot was acquired and given up.
    assert_eq!(plain.read(3), (vec![3], 1));
}

/// Rules: VX-840, VX-851.
#[test]
fn an_output_that_is_no_such_tensor_is_refused_and_says_why() {
    let stage = Stage::new();
    let mut writing = stage.writing(FOUR).unwrap();
    let mut wrong = outputs(0..3);
    wrong[1].record.value = vec![1; 5].into();
    wrong[2].record.headers = vec![0; 5000].into();
    let published = writing.publish(&wrong).unwrap();
    let reasons: Vec<_> = published.rejected.iter().map(|rejected| rejected.reason.as_str()).collect();
    assert_eq!((published.through, reasons.len()), (3, 2), "{reasons:?}");
    assert_eq!(reasons[0], "its value has 5 bytes, a tensor 2x2 of uint8 has 4");
    assert!(reasons[1].contains("the largest slot of stream 'cam' has 4096"), "{reasons:?}");
}

/// While there is no driver the sink holds what it is given; nothing of it is lost.
/// Rules: VX-840, VX-851.
#[test]
fn a_sink_waits_while_its_driver_is_away() {
    let mut stage = Stage::new();
    let mut writing = stage.writing(FOUR).unwrap();
    writing.publish(&outputs(0..1)).unwrap();
    stage.driver = None;
    let mut reason = String::new();
    until("the lease is away", || {
        let published = writing.publish(&outputs(1..2)).unwrap();
        reason = published.held.map(|held| held.reason).unwrap_or_default();
        published.through == 0
    });
    assert!(reason.contains("stream 'cam': not attached"), "{reason}");
    stage.start_driver();
    until("it is back", || writing.publish(&outputs(2..3)).unwrap().through == 1);
}

/// Rules: VX-851.
#[test]
fn a_sink_is_the_only_producer_and_gives_its_place_back() {
    let stage = Stage::new();
    let writer = stage.writer();
    let refused = stage.writing(FOUR).err().unwrap().to_string();
    assert!(refused.contains("main") && refused.contains("whether another producer has it"), "{refused}");
    drop(writer);
    let writing = stage.writing(FOUR).unwrap();
    let client = stage.client();
    let config = ProducerConfig { stream: Some(CAM), ..ProducerConfig::default() };
    let mut waiting = client.add_producer(config).unwrap();
    assert!(waiting.poll().unwrap().is_none());
    drop(writing);
    let mut next = waiting.wait(PATIENCE).unwrap();
    let layout = TensorLayout::contiguous(Dtype::Uint8, MajorOrder::Row, &[1]).unwrap();
    let offered = next.offer(&layout, &[1], FrameMeta::default());
    assert!(matches!(offered, Ok(_) | Err(PublishError::Unannounced { .. })), "{offered:?}");
}
