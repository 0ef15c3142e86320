use tidegate_hub::{
    config::Timeout,
    consumer::{Consumer, ReadSlot},
    producer::{Producer, WriteSlot},
};

fn guard_without_its_consumer<'c>(mut consumer: Consumer) -> ReadSlot<'c> {
    consumer.next(Timeout::Infinite).unwrap()
}

fn guard_without_its_producer<'p>(producer: Producer) -> WriteSlot<'p> {
    producer.write(Timeout::Infinite).unwrap()
}

fn leaves_while_it_reads(mut consumer: Consumer) {
    let slot = consumer.next(Timeout::Infinite).unwrap();
    consumer.detach().unwrap();
    drop(slot);
}

fn reads_two_at_once(mut consumer: Consumer) {
    let first = consumer.next(Timeout::Infinite).unwrap();
    let second = consumer.next(Timeout::Infinite).unwrap();
    drop((first, second));
}

fn view_without_its_claim(slot: ReadSlot<'_>) -> usize {
    let bytes = slot.bytes();
    drop(slot);
    bytes.len()
}

fn view_of_what_was_committed(mut slot: WriteSlot<'_>) {
    let bytes = slot.bytes_mut();
    slot.commit().unwrap();
    bytes.fill(0);
}

fn commits_and_aborts(slot: WriteSlot<'_>) {
    slot.commit().unwrap();
    slot.abort();
}

fn two_threads(_: impl FnOnce() + Send, _: impl FnOnce() + Send) {}

fn writes_from_two_threads(mut slot: WriteSlot<'_>) {
    two_threads(|| slot.put_bytes(b"a").unwrap(), || slot.put_bytes(b"b").unwrap());
}

fn main() {}
