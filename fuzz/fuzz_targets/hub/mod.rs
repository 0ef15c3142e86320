//! What holds for any bytes that the hub takes for its own: shared by the fuzz targets and by the tests that replay their
//! kept inputs.

use tidegate_hub::schema::{CsvColumns, RecordMut, RecordRef, Schema, SchemaTexts};

/// Any bytes as the schema region of a block. What is accepted prints as what was read, and records of it pass through JSON
/// and CSV.
pub fn schema(input: &[u8]) {
    // Garbage behind a zero fills a record.
    let (text, filling) = input.split_at(input.iter().position(|&byte| byte == 0).unwrap_or(input.len()));
    if let Ok(texts) = SchemaTexts::parse(text) {
        assert_eq!(texts.to_string().as_bytes(), text);
    }
    let Ok(text) = str::from_utf8(text) else { return };
    match Schema::parse(text) {
        Ok(schema) => {
            assert_eq!(schema.to_string(), text);
            records(&schema, filling);
        }
        Err(error) => {
            assert_eq!(error.line, 1);
            assert!(error.column as usize <= text.len() + 1, "{error}");
            assert!(error.to_string().contains("expected"), "{error}");
        }
    }
}

fn records(schema: &Schema, filling: &[u8]) {
    let size = schema.size() as usize;
    if size > 4096 {
        return;
    }
    let mut bytes = vec![0; size];
    bytes.iter_mut().zip(filling).for_each(|(place, byte)| *place = *byte);
    let Ok(json) = RecordRef::new(schema, &bytes).unwrap().to_json(1) else { return };
    let mut copy = vec![0xff; size];
    RecordMut::new(schema, &mut copy).unwrap().put_json(1, &json).unwrap();
    assert_eq!(RecordRef::new(schema, &copy).unwrap().to_json(1), Ok(json));

    let Ok(columns) = CsvColumns::of(schema) else { return };
    let row = columns.row(1, &copy).unwrap();
    let fields: Vec<&str> = row.iter().map(String::as_str).collect();
    let mut again = vec![0xff; size];
    columns.put_row(1, &fields, &mut again).unwrap();
    assert_eq!(again, copy);
}
