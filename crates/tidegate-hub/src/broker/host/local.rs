//! The host that this process runs on.

use std::{io, path::PathBuf};

use tidegate_shm::{
    host::HostId,
    region::{DirError, OpenError},
};

use super::{BlockFacts, HostView, Inspection, Liveness};
use crate::{
    block::{AttachError, AttachOptions, Role, Trust, look},
    broker::{
        error::BrokerError,
        wire::{Fixed, SchemaHash, ShmName},
    },
    identity::{self, Kernel, ProcessKey},
    layout::InitState,
};

/// This host: the kernel's process table, and the blocks in a directory, which are read and never mapped (DH-182).
#[derive(Clone)]
pub struct LocalHost {
    domain: String,
    options: AttachOptions<'static>,
}

impl LocalHost {
    /// With the blocks of this user in `/dev/shm`.
    ///
    /// # Errors
    /// [`BrokerError::System`] when `/proc` does not say which host this is.
    pub fn new() -> Result<Self, BrokerError> {
        let here = HostId::current().map_err(|source| BrokerError::System {
            what: "cannot identify this boot and its namespaces",
            source,
        })?;
        Ok(Self { domain: domain_of(&here), options: AttachOptions::new(Role::Inspector) })
    }

    /// With the blocks in `dir`.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.options.dir = dir.into();
        self
    }

    /// With blocks on huge pages in the hugetlbfs mount `dir` too.
    pub fn huge_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.options.huge_dir = Some(dir.into());
        self
    }

    /// With the blocks of these users and groups too.
    pub fn trust(mut self, trust: Trust) -> Self {
        self.options.trust = trust;
        self
    }
}

/// How clients and broker write where process keys of `host` mean something: boot, PID namespace, and time namespace,
/// which start times depend on.
pub fn domain_of(host: &HostId) -> String {
    format!("{}/{}/{}", Fixed(host.boot_id), host.pid_namespace, host.time_namespace)
}

impl HostView for LocalHost {
    fn domain(&self) -> &str {
        &self.domain
    }

    fn liveness(&self, key: ProcessKey) -> Liveness {
        identity::liveness(&Kernel, key)
    }

    fn inspect(&self, name: &ShmName) -> Inspection {
        let found = match look(name.as_str(), &self.options) {
            Ok(found) => found,
            Err(error) if is_missing(&error) => return Inspection::Missing,
            Err(error) => {
                tracing::debug!(%name, %error, "a block cannot be looked at");
                return Inspection::Unreadable;
            }
        };
        let spec = &found.descriptor.spec;
        Inspection::Found(BlockFacts {
            block_uuid: found.descriptor.uuid,
            channel_name: spec.channel.clone(),
            schema_hash: SchemaHash::from_bytes(spec.schema.slot_hash),
            is_ready: !matches!(found.state, InitState::Raw | InitState::Building),
        })
    }
}

/// Whether there is no file of that name, as opposed to one that cannot be used.
fn is_missing(error: &AttachError) -> bool {
    match error {
        AttachError::Open(OpenError::Unreadable { source, .. } | OpenError::Component { source, .. }) => {
            source.kind() == io::ErrorKind::NotFound
        }
        AttachError::Dir(error) => matches!(error, DirError::Missing { .. }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        os::unix::fs::FileExt,
        process::{Command, Stdio},
    };

    use super::*;
    use crate::{
        block::{Block, CreateOptions, create},
        broker::test_blocks::spec,
    };

    fn host() -> (tempfile::TempDir, LocalHost) {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let host = LocalHost::new().unwrap().dir(dir.path());
        (dir, host)
    }

    fn make(dir: &tempfile::TempDir, channel: &str) -> (Block, ShmName) {
        let options = CreateOptions { dir: dir.path().to_owned(), ..CreateOptions::default() };
        let block = create(&spec(channel), &options).unwrap();
        let name = ShmName::new(block.descriptor().file_name()).unwrap();
        (block, name)
    }

    /// What a block says of itself is found; nothing of it is mapped, written or counted.
    ///
    /// Rules: DH-182.
    #[test]
    fn a_block_is_looked_at_and_left_as_it_is() {
        let (dir, host) = host();
        let (block, name) = make(&dir, "a.b");
        let before = fs::read(block.path()).unwrap();
        let maps = |what: &str| fs::read_to_string("/proc/self/maps").unwrap().matches(what).count();
        let mapped = maps(name.as_str());
        let Inspection::Found(facts) = host.inspect(&name) else { panic!("it is there") };
        assert_eq!(facts.block_uuid, block.descriptor().uuid);
        assert_eq!((facts.channel_name.as_str(), facts.is_ready), ("a.b", true));
        assert_eq!(maps(name.as_str()), mapped);
        assert!(fs::read(block.path()).unwrap() == before);
    }

    /// Files that are no blocks: cut, changed, of another kind, or not there. None of them stops the broker.
    ///
    /// Rules: DH-005, DH-194.
    #[test]
    fn what_is_no_block_is_not_one() {
        let (dir, host) = host();
        let named = |text: &str| ShmName::new(text).unwrap();
        assert_eq!(host.inspect(&named("tidegate_x_00000001")), Inspection::Missing);
        let (block, name) = make(&dir, "a");
        let file = File::options().write(true).open(block.path()).unwrap();
        file.write_all_at(b"X", 0x40).unwrap();
        assert_eq!(host.inspect(&name), Inspection::Unreadable, "its digest is wrong");
        file.set_len(100).unwrap();
        assert_eq!(host.inspect(&name), Inspection::Unreadable, "it is cut");
        fs::remove_file(block.path()).unwrap();
        assert_eq!(host.inspect(&name), Inspection::Missing);
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("tidegate_dir_00000001")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path("tidegate_link_00000001")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("tidegate_fifo_00000001"),
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .unwrap();
        for name in ["tidegate_dir_00000001", "tidegate_link_00000001", "tidegate_fifo_00000001"] {
            assert_eq!(host.inspect(&named(name)), Inspection::Unreadable, "{name}");
        }
    }

    /// Rules: DH-033, DH-034.
    #[test]
    fn processes_are_judged_by_the_kernel() {
        let host = LocalHost::new().unwrap();
        assert_eq!(host.liveness(ProcessKey::current().unwrap()), Liveness::Alive);
        let mut child = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap();
        let id = tidegate_shm::process::ProcessId::of(child.id()).unwrap();
        let key = ProcessKey::new(id.pid, id.start_time).unwrap();
        assert_eq!(host.liveness(key), Liveness::Alive);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(host.liveness(key), Liveness::Dead);
    }
}
