//! Where a running broker is, in a file beside its sockets, so that clients need no address.
//!
//! The file is written in one step once the broker listens, and removed before it stops. What a killed broker leaves names
//! a process that is gone, and counts as no broker.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{fs::OFlags, process::geteuid};
use serde::{Deserialize, Serialize};

use super::{
    error::BrokerError,
    service::Broker,
    wire::{Label, Z85Key, json},
};
use crate::identity::{self, Kernel, ProcessKey};

/// What clients need to know of a running broker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BrokerAddress {
    /// Where it listens.
    pub endpoint: String,
    /// Where it publishes events.
    pub events_endpoint: String,
    /// Which start it is.
    pub epoch: Label,
    /// Its process.
    pub process_key: ProcessKey,
    /// Its CURVE key, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<Z85Key>,
}

impl BrokerAddress {
    /// Name of the file.
    pub const FILE_NAME: &str = "broker.json";

    /// The address of a broker in this process.
    ///
    /// # Errors
    /// [`BrokerError::Identity`] when this process cannot be identified.
    pub fn of(broker: &Broker) -> Result<Self, BrokerError> {
        Ok(Self {
            endpoint: broker.endpoint().to_owned(),
            events_endpoint: broker.events_endpoint().to_owned(),
            epoch: broker.epoch().clone(),
            process_key: ProcessKey::current()?,
            public_key: broker.public_key().map(Z85Key),
        })
    }

    /// The file in `dir`.
    pub fn file(dir: &Path) -> PathBuf {
        dir.join(Self::FILE_NAME)
    }

    /// Replaces the file in `dir`, mode 0600.
    ///
    /// # Errors
    /// [`BrokerError::File`].
    pub fn write(&self, dir: &Path) -> Result<(), BrokerError> {
        let path = Self::file(dir);
        let staged = path.with_extension("json.new");
        let failed = |source| BrokerError::File {
            path: path.clone(),
            what: "cannot write the broker's address",
            source,
        };
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(&staged)
            .and_then(|mut file| file.write_all(&json(self)));
        written.and_then(|()| fs::rename(&staged, &path)).map_err(failed)
    }

    /// The running broker that the file in `dir` names; `None` when there is no file or its process is dead.
    ///
    /// # Errors
    /// [`BrokerError::NotPrivate`] for a file that somebody else could have written, [`BrokerError::File`] for one that
    /// cannot be read or holds no address.
    pub fn read(dir: &Path) -> Result<Option<Self>, BrokerError> {
        const LARGEST: u64 = 8 << 10;
        let path = Self::file(dir);
        let failed = |what| {
            let path = path.clone();
            move |source| BrokerError::File { path, what, source }
        };
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed("cannot open the broker's address")(source)),
        };
        let metadata = file.metadata().map_err(failed("cannot look at the broker's address"))?;
        if !metadata.is_file() || metadata.uid() != geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
            let problem = "others could have written it; remove it and start the broker again";
            return Err(BrokerError::NotPrivate { path, problem });
        }
        let mut text = Vec::new();
        file.take(LARGEST).read_to_end(&mut text).map_err(failed("cannot read the broker's address"))?;
        let address: Self = serde_json::from_slice(&text)
            .map_err(|error| failed("holds no address of a broker")(error.into()))?;
        Ok(Some(address).filter(Self::is_alive))
    }

    /// Removes the file in `dir`, if there is one.
    ///
    /// # Errors
    /// [`BrokerError::File`].
    pub fn remove(dir: &Path) -> Result<(), BrokerError> {
        let path = Self::file(dir);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(BrokerError::File { path, what: "cannot remove the broker's address", source })
            }
            _ => Ok(()),
        }
    }

    /// Whether its process may still run.
    fn is_alive(&self) -> bool {
        identity::liveness(&Kernel, self.process_key) != identity::Liveness::Dead
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, process::Command};

    use super::*;

    fn address(key: ProcessKey) -> BrokerAddress {
        BrokerAddress {
            endpoint: "ipc:///x/broker.sock".into(),
            events_endpoint: "ipc:///x/events.sock".into(),
            epoch: Label::new("e").unwrap(),
            process_key: key,
            public_key: None,
        }
    }

    #[test]
    fn an_address_is_found_while_its_process_lives() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(BrokerAddress::read(dir.path()).unwrap(), None);
        let own = address(ProcessKey::current().unwrap());
        own.write(dir.path()).unwrap();
        own.write(dir.path()).unwrap();
        assert_eq!(BrokerAddress::read(dir.path()).unwrap(), Some(own));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let id = tidegate_shm::process::ProcessId::of(child.id()).unwrap();
        let other = address(ProcessKey::new(id.pid, id.start_time).unwrap());
        other.write(dir.path()).unwrap();
        assert_eq!(BrokerAddress::read(dir.path()).unwrap(), Some(other));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(BrokerAddress::read(dir.path()).unwrap(), None, "killed");

        BrokerAddress::remove(dir.path()).unwrap();
        BrokerAddress::remove(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    /// A file that others may write, a link, and garbage name no broker.
    #[test]
    fn an_address_of_somebody_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = BrokerAddress::file(dir.path());
        address(ProcessKey::current().unwrap()).write(dir.path()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o622)).unwrap();
        assert!(matches!(BrokerAddress::read(dir.path()), Err(BrokerError::NotPrivate { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "{}").unwrap();
        assert!(matches!(BrokerAddress::read(dir.path()), Err(BrokerError::File { .. })));
        let elsewhere = dir.path().join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(matches!(BrokerAddress::read(dir.path()), Err(BrokerError::File { .. })));
    }
}
