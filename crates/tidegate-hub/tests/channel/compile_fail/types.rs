use tidegate_hub::consumer::ReadSlot;

fn writes_to_what_it_reads(slot: ReadSlot<'_>) {
    slot.bytes().write_at(0, b"a").unwrap();
}

fn changes_what_it_reads(mut slot: ReadSlot<'_>) {
    slot.bytes_mut();
}

fn main() {}
