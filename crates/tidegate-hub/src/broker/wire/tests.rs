//! Golden messages of 13.3, and what is not one.

use super::*;

const REG: &str = r#"{"type":"REG_REQ","proto":1,"msg_id":"p-1","client_id":"prod.sensor.01","ts_ms":1770459330000,"nonce":"q83vEjRWeJASNFZ4kBI0Vg==",
 "channel_name":"sensor_temperature","shm_name":"tidegate_sensor_temperature_9f3c21ab","block_uuid":"9f3c21ab5d0e4c7f8a1b2c3d4e5f6071",
 "policy":"RingBuffer","sync":"AllReaders","unit_block_size":4096,"ring_buffer_capacity":8,
 "schema_hash":"5e15452115a763083f10341f190c5da83bde2ce0f44524e2ef5d2b84b837c426","schema_version":"2.0",
 "shared_secret_hash":"e7a0ab0f4428536016540dd453a2997bacd29fd70630912f3a36ea14722ad652","secret_proof":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
 "key_id":"0011223344556677","key_epoch":1,"producer_uid":"PROD-Sensor-A1B2C3D4","process_key":"4142521135161","host_domain":"boot/ns",
 "first_slot_id":"0","zmq_endpoint":"ipc:///run/user/1000/tidegate/n-9f3c21ab5d0e.sock","unknown":[1,{"x":null}]}"#;

fn code(text: &str) -> Code {
    Request::decode(text.as_bytes()).expect_err(text).code
}

/// Rules: DH-186, DH-187.
#[test]
fn the_registration_of_the_sheet_is_read_and_written() {
    let request = Request::decode(REG.as_bytes()).unwrap();
    let RequestBody::Register(body) = &request.body else { panic!("{request:?}") };
    assert_eq!(
        (body.process_key, body.schema_version),
        (ProcessKey::from_word(4_142_521_135_161).unwrap(), SchemaVersion::new(2, 0))
    );
    assert_eq!(body.credentials().unwrap().key_epoch, 1);
    let written: serde_json::Value = serde_json::from_slice(&request.encode()).unwrap();
    let mut golden: serde_json::Value = serde_json::from_str(REG).unwrap();
    golden.as_object_mut().unwrap().remove("unknown");
    golden["lease_ms"] = 0.into();
    assert_eq!(written, golden);
}

/// Every field but the optional ones is missed by name.
///
/// Rules: DH-186.
#[test]
fn a_missing_field_is_named() {
    let whole: serde_json::Value = serde_json::from_str(REG).unwrap();
    for field in whole.as_object().unwrap().keys() {
        let mut part = whole.clone();
        part.as_object_mut().unwrap().remove(field);
        match Request::decode(part.to_string().as_bytes()) {
            Ok(_) => assert!(["zmq_endpoint", "unknown"].contains(&field.as_str()), "{field}"),
            Err(refusal) => {
                assert_eq!(refusal.code, Code::BadRequest);
                assert!(refusal.message.contains(field.as_str()), "{field}: {}", refusal.message);
            }
        }
    }
}

/// Rules: DH-187, M-08.
#[test]
fn large_numbers_are_exact() {
    let read = |text: &str| serde_json::from_str::<U64>(text).ok();
    assert_eq!(read("\"9007199254740993\""), Some(U64((1 << 53) + 1)));
    assert_eq!(read("9007199254740991"), Some(U64((1 << 53) - 1)));
    for refused in ["9007199254740992", "\"-1\"", "\"01\"", "\"\"", "1.0", "\"18446744073709551616\""] {
        assert_eq!(read(refused), None, "{refused}");
    }
    assert_eq!(serde_json::to_string(&U64(u64::MAX)).unwrap(), "\"18446744073709551615\"");
}

/// Rules: DH-186.
#[test]
fn what_is_no_request_gets_its_code() {
    assert_eq!(code(&REG.replace("sensor_temperature\",\"shm", "Sensor\",\"shm")), Code::NameInvalid);
    assert_eq!(code(&REG.replace("\"proto\":1", "\"proto\":2")), Code::UnsupportedProto);
    assert_eq!(code(&REG.replace("REG_REQ", "REG_REG")), Code::UnknownType);
    assert_eq!(code(&REG.replace("\"p-1\"", &format!("\"{}\"", "x".repeat(65)))), Code::BadRequest);
    assert_eq!(code(&REG.replace("5e15", "5E15")), Code::BadRequest, "upper-case hex");
    assert_eq!(
        code(&REG.replace("\"key_epoch\":1", "\"key_epoch\":1,\"key_epoch\":1")),
        Code::BadRequest,
        "twice"
    );
    assert_eq!(code(&" ".repeat(MAX_BODY + 1)), Code::Limit);
}

/// Rules: DH-187.
#[test]
fn events_and_notifications_come_back_as_they_went() {
    let channel = ChannelName::new("a").unwrap();
    let body = EventBody::ConsDrop {
        channel_id: ChannelId(3),
        consumer_id: Label::new("ui").unwrap(),
        reason: DropReason::ProcessDead,
    };
    let event = Event { proto: PROTO, broker_epoch: Label::new("e").unwrap(), ts_ms: 1, body };
    let message = event.encode(&channel);
    assert_eq!(message.parts()[0], "hub/a");
    assert_eq!(Event::decode(&message), Some((channel.clone(), event)));
    let notice = Notification {
        block_uuid: BlockUuid::new([1; 16]).unwrap(),
        slot_id: U64(u64::MAX),
        commit_index: U64(2),
        ts_ns: 3,
    };
    let message = notice.encode(&channel);
    assert!(message.parts()[2].starts_with(br#"{"type":"DB_NOTIFY""#));
    assert_eq!(Notification::decode(&message), Some((channel, notice)));
}
