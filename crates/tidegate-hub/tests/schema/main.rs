//! Chapter 12: texts, hashes, comparison, records, derive macros.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(unreachable_pub, reason = "modules of one test binary")]

mod compare;
mod compile_fail;
mod corpus;
mod derive;
mod parse;
mod properties;
mod records;
mod stored;
mod text;

const SENSOR: &str =
    "tds1 SensorData size=16 align=8 {timestamp_ns:u64@0+8;temperature:f32@8+4;pressure:f32@12+4}";
const SENSOR_21: &str = "tds1 SensorData size=24 align=8 {timestamp_ns:u64@0+8;temperature:f32@8+4;pressure:f32@12+4;humidity:f32?@16+4;_pad0:u8[4]@20+4}";
const POSE: &str =
    "tds1 Pose size=32 align=8 {id:u32@0+4;_pad0:u8[4]@4+4;pos:Vec3{x:f64@0+8;y:f64@8+8;z:f64@16+8}@8+24}";
const EVERYTHING: &str = "tds1 Everything size=112 align=8 {a:u64@0+8;b:i64@8+8;c:f64@16+8;d:u32@24+4;e:i32@28+4;f:f32@32+4;g:u16@36+2;h:i16@38+2;i:u8@40+1;j:i8@41+1;flag:b8@42+1;letter:c8@43+1;label:c8[12]@44+12;grid:u16[6]@56+12;legs:Leg{angle:f32@0+4;id:u8@4+1;_pad0:u8[3]@5+3}[3]@68+24;_pad0:u8[4]@92+4;last:i64[2]@96+16}";

fn schema(text: &str) -> tidegate_hub::schema::Schema {
    tidegate_hub::schema::Schema::parse(text).unwrap()
}
