//! Where it is measured, without which results are worth nothing (MQ-500), and what of it the measurements need.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::CpuSet;
use serde_json::{Map, Value, json};

/// Processors are left to the kernel on machines with fewer cores.
const CORES_TO_PIN: usize = 4;

/// Processors for the end that binds and for the one that connects: two physical cores each, one thread of a core.
pub(crate) fn placement() -> Option<[[usize; 2]; 2]> {
    let places = fs::read_dir("/sys/devices/system/cpu").ok()?.flatten().filter_map(|entry| {
        let number: usize = entry.file_name().to_str()?.strip_prefix("cpu")?.parse().ok()?;
        let core = |name| read(&entry.path().join("topology").join(name))?.parse::<usize>().ok();
        Some((number, (core("physical_package_id")?, core("core_id")?)))
    });
    apart(places)
}

/// The first thread of each of the first cores. `places`: processors with the core they belong to.
fn apart(places: impl Iterator<Item = (usize, (usize, usize))>) -> Option<[[usize; 2]; 2]> {
    let mut cores: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for (processor, core) in places {
        let first = cores.entry(core).or_insert(processor);
        *first = processor.min(*first);
    }
    let firsts: Vec<_> = cores.into_values().collect();
    match firsts[..] {
        [a, b, c, d, ..] if firsts.len() >= CORES_TO_PIN => Some([[a, b], [c, d]]),
        _ => None,
    }
}

pub(crate) fn cpu_set(processors: [usize; 2]) -> CpuSet {
    let mut set = CpuSet::new();
    processors.into_iter().for_each(|processor| set.set(processor));
    set
}

/// Lets this process and its children open as many files as they may; tells how many that are.
pub(crate) fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // What the kernel allows, it does not refuse.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The machine and its state. Unknown things are null.
pub(crate) fn machine() -> Map<String, Value> {
    let system = rustix::system::uname();
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let devices = Path::new("/sys/devices/system/cpu");
    let turbo = match (read(&devices.join("intel_pstate/no_turbo")), read(&devices.join("cpufreq/boost"))) {
        (Some(off), _) => Some(off == "0"),
        (None, Some(on)) => Some(on == "1"),
        (None, None) => None,
    };
    let load = read(Path::new("/proc/loadavg"));
    let fields = json!({
        "kernel": system.release().to_string_lossy(),
        "cpu": model.map(|(_, model)| model),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "governor": read(&devices.join("cpu0/cpufreq/scaling_governor")),
        "turbo": turbo,
        // One that paces by what it estimates gives other rates of large messages than one that does not.
        "congestion_control": read(Path::new("/proc/sys/net/ipv4/tcp_congestion_control")),
        "load": load.as_deref().and_then(|load| load.split(' ').next()?.parse::<f64>().ok()),
        "pinned": placement(),
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: MQ-500.
    #[test]
    fn processes_are_pinned_to_cores_of_their_own_when_there_are_four() {
        let siblings = (0..8).map(|number| (number, (0, number % 4)));
        assert_eq!(apart(siblings.rev()), Some([[0, 1], [2, 3]]));
        let threads_of_two = (0..4).map(|number| (number, (0, number / 2)));
        assert_eq!(apart(threads_of_two), None);
    }

    /// Rules: MQ-500.
    #[test]
    fn the_machine_is_described() {
        let machine = machine();
        assert!(machine["kernel"].is_string() && machine["cores"].as_u64() > Some(0), "{machine:?}");
        for field in ["cpu", "governor", "turbo", "congestion_control", "load", "pinned"] {
            assert!(machine.contains_key(field), "{field}");
        }
    }
}
