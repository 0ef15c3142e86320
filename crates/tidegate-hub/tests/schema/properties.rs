//! What holds for every schema, and for every record of it.

use proptest::collection::vec;
use proptest::prelude::*;
use tidegate_hub::schema::{
    Agreement, Base, Builder, CsvColumns, Field, FieldType, Offer, Prim, RecordMut, RecordRef, Schema,
    SchemaExpectation, SchemaMode, SchemaVersion, compare,
};

/// Type, count, and how many of the schemas before it are nested.
type Draft = Vec<(usize, Option<u32>, bool)>;

fn drafts() -> impl Strategy<Value = (Vec<Draft>, u32)> {
    let field = (0..14usize, proptest::option::of(1..5u32), any::<bool>());
    (vec(vec(field, 1..6), 1..5), 0..3u32)
}

/// Schemas in which each may nest the one before; the last has some optional fields at its end.
fn built(drafts: &[Draft], optional: u32) -> Schema {
    let mut inner: Option<Schema> = None;
    for (level, draft) in drafts.iter().enumerate() {
        let mut builder = Builder::new(&format!("Record{level}"));
        for (at, &(prim, count, _)) in draft.iter().enumerate() {
            let name = format!("field_{at}");
            builder = match (Prim::ALL.get(prim), &inner) {
                (Some(&prim), _) => builder.field(&name, prim, count, false),
                (None, Some(inner)) => builder.nested(&name, inner, count, false),
                (None, None) => builder.field(&name, Prim::U8, count, false),
            }
            .unwrap();
        }
        if level + 1 == drafts.len() {
            for at in 0..optional {
                let prim = Prim::ALL[at as usize * 5 % 12];
                builder = builder.field(&format!("appended_{at}"), prim, None, true).unwrap();
            }
        }
        inner = Some(builder.finish().unwrap());
    }
    inner.unwrap()
}

/// Makes bytes of a record valid: `b8` 0 or 1, text of ASCII with zeros behind it, no NaN, padding zero.
fn tame(ty: &FieldType, bytes: &mut [u8]) {
    let elements = ty.count().unwrap_or(1) as usize;
    let size = bytes.len() / elements;
    match ty.base() {
        Base::Prim(Prim::C8) => {
            let mut ended = false;
            for byte in bytes {
                *byte &= 0x7f;
                ended |= *byte == 0;
                *byte = if ended { 0 } else { *byte };
            }
        }
        Base::Prim(Prim::B8) => bytes.iter_mut().for_each(|byte| *byte &= 1),
        Base::Prim(Prim::F32 | Prim::F64) => {
            // Clears a bit of the exponent, so that it is a number.
            bytes.chunks_exact_mut(size).for_each(|float| float[size - 1] &= 0xbf);
        }
        Base::Prim(_) => {}
        Base::Record(record) => {
            bytes.chunks_exact_mut(size).for_each(|bytes| tame_all(record.fields(), bytes))
        }
    }
}

fn tame_all(fields: &[Field], bytes: &mut [u8]) {
    for field in fields {
        let place = &mut bytes[field.offset() as usize..][..field.size() as usize];
        if field.is_padding() { place.fill(0) } else { tame(field.ty(), place) }
    }
}

proptest! {
    /// Rules: DH-168.
    #[test]
    fn texts_are_read_as_they_were_printed((drafts, optional) in drafts()) {
        let schema = built(&drafts, optional);
        let text = schema.to_string();
        let parsed = Schema::parse(&text).unwrap();
        prop_assert_eq!(&parsed, &schema);
        prop_assert_eq!(parsed.to_string(), text);
        // Laid out as C does: each field at the first place that fits.
        prop_assert!(schema.size().is_multiple_of(schema.align()));
        let end = schema.fields().iter().fold(0, |end, field| { assert_eq!(field.offset(), end); end + field.size() });
        prop_assert_eq!(end, schema.size());
    }

    /// Rules: DH-168.
    #[test]
    fn any_text_is_canonical_or_refused(text in "(tds1 )?[A-Za-z]{0,3} ?size=[0-9]{0,3} align=[0-9]{0,2} [{}a-z0-9:;@+\\[\\]?\u{e9}\n ]{0,40}") {
        if let Ok(schema) = Schema::parse(&text) {
            prop_assert_eq!(schema.to_string(), text);
        }
    }

    #[test]
    fn records_pass_through_json_and_csv((drafts, optional) in drafts(), noise in vec(any::<u8>(), 64)) {
        let schema = built(&drafts, optional);
        let mut bytes: Vec<u8> = noise.iter().copied().cycle().take(schema.size() as usize).collect();
        tame_all(schema.fields(), &mut bytes);

        let json = RecordRef::new(&schema, &bytes).unwrap().to_json(1).unwrap();
        let text = serde_json::to_string(&json).unwrap();
        let mut copy = vec![0xaa; bytes.len()];
        RecordMut::new(&schema, &mut copy).unwrap().put_json(1, &serde_json::from_str(&text).unwrap()).unwrap();
        prop_assert_eq!(&copy, &bytes, "{}", text);

        let columns = CsvColumns::of(&schema).unwrap();
        let row = columns.row(1, &bytes).unwrap();
        let fields: Vec<&str> = row.iter().map(String::as_str).collect();
        copy.fill(0xaa);
        columns.put_row(1, &fields, &mut copy).unwrap();
        prop_assert_eq!(&copy, &bytes, "{:?}", row);
    }

    #[test]
    fn any_bytes_of_a_record_give_json_that_reads_back_or_an_error((drafts, optional) in drafts(), noise in vec(any::<u8>(), 64)) {
        let schema = built(&drafts, optional);
        let bytes: Vec<u8> = noise.iter().copied().cycle().take(schema.size() as usize).collect();
        if let Ok(json) = RecordRef::new(&schema, &bytes).unwrap().to_json(1) {
            let mut copy = vec![0xaa; bytes.len()];
            RecordMut::new(&schema, &mut copy).unwrap().put_json(1, &json).unwrap();
            prop_assert_eq!(RecordRef::new(&schema, &copy).unwrap().to_json(1), Ok(json));
        }
    }

    /// Rules: DH-176.
    #[test]
    fn optional_fields_at_the_end_are_compatible_both_ways((drafts, _) in drafts(), fewer in 0..3u32, more in 0..3u32) {
        let (ours, theirs) = (built(&drafts, fewer), built(&drafts, more));
        let expected = SchemaExpectation {
            schema: ours.clone(), version: SchemaVersion::new(1, 0), min_minor: 0, mode: SchemaMode::AllowAppended,
        };
        let text = theirs.to_string();
        let offer = Offer { hash: theirs.hash(), version: SchemaVersion::new(1, 0), text: Some(&text) };
        let agreement = compare(&expected, &offer).unwrap();
        let is_producer = matches!(agreement, Agreement::ProducerAppended { .. });
        let is_consumer = matches!(agreement, Agreement::ConsumerAppended { .. });
        match fewer.cmp(&more) {
            std::cmp::Ordering::Equal => prop_assert_eq!(agreement, Agreement::Identical { size: ours.size() }),
            std::cmp::Ordering::Less => prop_assert!(is_producer, "{agreement:?}"),
            std::cmp::Ordering::Greater => prop_assert!(is_consumer, "{agreement:?}"),
        }
        // What both know is what both have, and at the same place.
        for field in ours.fields().iter().filter(|field| !field.is_padding()) {
            let has = agreement.has((field.offset() + field.size()) as usize);
            prop_assert_eq!(has, theirs.fields().contains(field));
        }
    }
}
