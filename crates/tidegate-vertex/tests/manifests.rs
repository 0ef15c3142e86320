//! The manifests of `examples/kubernetes/vertex`: filled in with their values, they are a pipeline and a pod that fit each other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{collections::BTreeMap, fs, path::Path};

use tidegate_vertex::{config::Pipeline, run::memory};

const PLACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/kubernetes/vertex");

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(PLACE).join(name)).unwrap()
}

fn values() -> BTreeMap<String, String> {
    let text = read("values.yaml");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// A template with its values, all of which there have to be.
fn rendered(name: &str) -> String {
    let mut text = read(name);
    for (key, value) in values() {
        text = text.replace(&format!("{{{{ .Values.{key} }}}}"), &value);
    }
    assert!(!text.contains("{{"), "{text}");
    text
}

/// Rules: VX-875.
#[test]
fn the_manifests_fit_their_pipeline() {
    let config = rendered("templates/configmap.yaml");
    let (_, file) = config.split_once("pipeline.toml: |\n").unwrap();
    let file: String =
        file.lines().map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect();
    let pipeline: Pipeline = file.parse().unwrap_or_else(|error| panic!("{error}\n{file}"));
    let value = |key: &str| values()[key].parse::<u64>().unwrap();
    let least: u64 = memory(&pipeline, pipeline.source.partitions()).iter().map(|term| term.bound).sum();
    assert!(value("memoryMiB") << 20 > least, "the runtime alone takes {} MiB", least >> 20);
    assert!(value("terminationGracePeriodSeconds") >= value("shutdownGraceSeconds") + 5);
    let pod = rendered("templates/statefulset.yaml");
    for privilege in ["privileged", "hostIPC", "hostPID", "hostNetwork"] {
        assert!(!pod.contains(privilege), "{privilege}");
    }
    assert!(pod.contains("terminationGracePeriodSeconds: 30") && pod.contains("volumeClaimTemplates"));
    // Each worker is a container of its own, which knows where the runtime listens: in a volume that both have.
    let (sidecars, vertex) = pod.split_once("\n      containers:\n").unwrap();
    let workers = sidecars.matches("- name: function-").count();
    assert_eq!(workers, pipeline.udf.workers.get() as usize);
    assert_eq!(sidecars.matches("restartPolicy: Always").count(), workers);
    let listen = pipeline.udf.listen.as_ref().unwrap();
    let told = format!("- name: TIDEGATE_VX_SOCKET\n              value: {}\n", listen.display());
    assert!(sidecars.contains(&told), "{sidecars}");
    let shared = "- name: attach\n              mountPath: /run/attach\n";
    assert!(sidecars.contains(shared) && vertex.contains(shared));
    // The volume is open to all of the pod; the directory in it is the runtime's.
    assert_eq!(listen.parent().unwrap().parent(), Some(Path::new("/run/attach")));
}
