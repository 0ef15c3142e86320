use tidegate_hub::{schema::ZoneLayout, zone::{ZoneCell, Zone}};
use tidegate_shm::sync::AtomicU64;

#[repr(C)]
#[derive(ZoneLayout)]
struct Telemetry {
    beats: AtomicU64,
    position: ZoneCell<f64>,
}

fn plain_value_without_the_zone_to_oneself(zone: &Zone<'_, Telemetry>) {
    zone.fields().unwrap().position().load();
    zone.shared().unwrap().position().store(&1.0);
}

fn change_while_only_looking(zone: &Zone<'_, Telemetry>) {
    zone.fields().unwrap().beats().fetch_add(1, tidegate_shm::sync::Ordering::Relaxed);
}

fn main() {}
