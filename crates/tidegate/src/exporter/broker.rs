//! The broker of a node.

use tidegate_hub::broker::{BrokerMeter, BrokerMetrics};

use super::numbers::{Number, Numbers};

/// A number of a broker: its name, what it is, and where it is.
type Column = (&'static str, &'static str, fn(&BrokerMetrics) -> u64);

const GAUGES: [Column; 3] = [
    ("tidegate_broker_channels", "Channels registered now", |broker| broker.registry.channels),
    ("tidegate_broker_clients", "Clients remembered now", |broker| broker.registry.clients),
    ("tidegate_broker_attachments", "Attached consumers known now", |broker| broker.registry.attachments),
];

const COUNTERS: [Column; 16] = [
    ("tidegate_broker_requests", "Requests received", |broker| broker.registry.requests),
    ("tidegate_broker_answered_ok", "Requests answered OK", |broker| broker.registry.answered_ok),
    ("tidegate_broker_refused", "Requests refused", |broker| broker.registry.refused),
    ("tidegate_broker_refused_malformed", "Requests refused as malformed", |broker| {
        broker.registry.refused_malformed
    }),
    ("tidegate_broker_refused_auth", "Requests refused without proof or right", |broker| {
        broker.registry.refused_auth
    }),
    ("tidegate_broker_refused_replay", "Requests refused as replayed or late", |broker| {
        broker.registry.refused_replay
    }),
    ("tidegate_broker_refused_limit", "Requests refused over a limit", |broker| {
        broker.registry.refused_limit
    }),
    ("tidegate_broker_duplicates", "Duplicates answered again", |broker| broker.registry.duplicates),
    ("tidegate_broker_dropped", "Requests left without a reply", |broker| broker.registry.dropped),
    ("tidegate_broker_delayed_dropped", "Delayed replies that were dropped", |broker| {
        broker.registry.delayed_dropped
    }),
    ("tidegate_broker_events", "Events published", |broker| broker.registry.events),
    ("tidegate_broker_leases_expired", "Leases that ran out", |broker| broker.registry.leases_expired),
    ("tidegate_broker_replaced", "Registrations that replaced another", |broker| broker.registry.replaced),
    ("tidegate_broker_send_failures", "Replies and events not sent", |broker| broker.send_failures),
    ("tidegate_broker_saves", "Times the registry was written", |broker| broker.saves),
    ("tidegate_broker_save_failures", "Times the registry could not be written", |broker| {
        broker.save_failures
    }),
];

/// The numbers of the broker that `meter` reads.
#[must_use]
pub fn broker_numbers(meter: &BrokerMeter) -> Numbers {
    let read = |value: fn(&BrokerMetrics) -> u64| {
        let meter = meter.clone();
        move || value(&meter.read())
    };
    let gauges = GAUGES.iter().map(|(name, help, value)| Number::gauge(name, help, read(*value)));
    let counters = COUNTERS.iter().map(|(name, help, value)| Number::counter(name, help, read(*value)));
    Numbers(gauges.chain(counters).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn every_number_is_told_once_under_its_own_name() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(broker_numbers(&BrokerMeter::default())));
        let mut page = String::new();
        encode(&mut page, &registry).unwrap();
        let values: BTreeSet<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(values.len(), GAUGES.len() + COUNTERS.len(), "{page}");
        assert!(
            values.contains("tidegate_broker_requests_total 0")
                && values.contains("tidegate_broker_channels 0")
        );
    }
}
