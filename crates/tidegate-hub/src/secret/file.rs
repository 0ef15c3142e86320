//! Key files and their text.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustix::{fs::OFlags, process::geteuid};
use zeroize::Zeroizing;

use super::{KeyTextFault, SecretError};
use crate::layout::{KeyId, Secret};

/// Reads a key file.
///
/// # Errors
/// It cannot be read, others could read it, or it holds no key (DH-165).
pub fn read_key_file(path: &Path) -> Result<Secret, SecretError> {
    // What is found out about the file must be about what is read: one descriptor, no symbolic link, no waiting for a
    // pipe.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path)
        .map_err(|source| failed("open", path, source))?;
    let metadata = file.metadata().map_err(|source| failed("examine", path, source))?;
    if !metadata.is_file() {
        return Err(SecretError::NotAFile { path: path.to_owned() });
    }
    let (uid, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if uid != geteuid().as_raw() || mode & !0o600 != 0 {
        return Err(SecretError::Exposed { path: path.to_owned(), uid, mode });
    }
    read_text(file, path)
}

/// Reads the text of a key file from an inherited descriptor.
pub(super) fn read_descriptor(number: u32) -> Result<Secret, SecretError> {
    // Opening it anew needs no claim that the number is ours to close.
    let path = PathBuf::from(format!("/proc/self/fd/{number}"));
    let file = File::open(&path).map_err(|source| failed("open", &path, source))?;
    read_text(file, &path)
}

/// Writes `secret` to a new file that only this user can read (DH-167). An existing file is never replaced.
///
/// # Errors
/// The file exists, or cannot be written; then there is none.
pub fn write_key_file(secret: &Secret, path: &Path) -> Result<(), SecretError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| failed("create", path, source))?;
    let written = file.write_all(key_text(secret).as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|source| {
        // Half a key is worse than none; if it cannot be removed either, its key id gives it away.
        let _ = std::fs::remove_file(path);
        failed("write", path, source)
    })
}

fn read_text(file: impl Read, place: &Path) -> Result<Secret, SecretError> {
    let mut text = Zeroizing::new([0; LONGEST_TEXT + 1]);
    let len = read_up_to(file, &mut *text).map_err(|source| failed("read", place, source))?;
    let fault = |fault| SecretError::Text { place: place.to_owned(), fault };
    match text.get(..len) {
        Some(text) if len <= LONGEST_TEXT => parse(text).map_err(|error| match error {
            Refused::Fault(found) => fault(found),
            Refused::Unusable(error) => error.into(),
        }),
        _ => Err(fault(KeyTextFault::TooLong)),
    }
}

fn read_up_to(mut file: impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

enum Refused {
    Fault(KeyTextFault),
    Unusable(crate::layout::SecretUnusable),
}

fn parse(text: &[u8]) -> Result<Secret, Refused> {
    let line = text.strip_suffix(b"\n").unwrap_or(text);
    let mut parts = line.splitn(3, |&byte| byte == b':');
    let (Some(b"tgk1"), Some(id), Some(encoded)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(Refused::Fault(KeyTextFault::Form));
    };
    let stated = key_id(id).ok_or(Refused::Fault(KeyTextFault::KeyId))?;
    let mut bytes = Zeroizing::new([0; LONGEST_TEXT]);
    let len =
        STANDARD.decode_slice(encoded, &mut *bytes).map_err(|_| Refused::Fault(KeyTextFault::Base64))?;
    let secret = Secret::new(bytes.get(..len).unwrap_or_default()).map_err(Refused::Unusable)?;
    let found = secret.key_id();
    if found == stated { Ok(secret) } else { Err(Refused::Fault(KeyTextFault::OtherKey { stated, found })) }
}

fn key_id(digits: &[u8]) -> Option<KeyId> {
    let plain = digits.len() == 16 && digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let text = str::from_utf8(digits).ok().filter(|_| plain)?;
    Some(KeyId(u64::from_str_radix(text, 16).ok()?.to_be_bytes()))
}

fn key_text(secret: &Secret) -> Zeroizing<String> {
    // With room for the whole, so that no part of it is left behind by growing.
    let mut text = Zeroizing::new(String::with_capacity(LONGEST_TEXT));
    text.push_str(&format!("tgk1:{}:", secret.key_id()));
    STANDARD.encode_string(secret.bytes(), &mut text);
    text.push('\n');
    text
}

fn failed(operation: &'static str, place: &Path, source: io::Error) -> SecretError {
    SecretError::File { operation, place: place.to_owned(), source }
}

/// `tgk1:`, a key id and a colon, base64 of 64 bytes, a line feed, and some.
const LONGEST_TEXT: usize = 128;

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::pipe,
        os::{fd::AsRawFd as _, unix::fs::PermissionsExt},
        sync::Arc,
    };

    use super::*;
    use crate::{
        layout::SecretUnusable,
        secret::{SecretSource, generate, key_id_of_file},
    };

    fn with_mode(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Rules: DH-161, DH-165, DH-167, N-29.
    #[test]
    fn a_new_key_file_is_the_owners_alone_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let secret = generate().unwrap();
        assert_ne!(secret.bytes(), generate().unwrap().bytes());
        assert_eq!(secret.bytes().len(), 32);
        write_key_file(&secret, &path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(read_key_file(&path).unwrap().bytes(), secret.bytes());
        assert_eq!(SecretSource::File(path.clone()).load().unwrap().bytes(), secret.bytes());
        assert_eq!(key_id_of_file(&path).unwrap(), secret.key_id());
        let again = write_key_file(&generate().unwrap(), &path).unwrap_err();
        assert!(matches!(again, SecretError::File { operation: "create", .. }), "{again}");
        assert_eq!(read_key_file(&path).unwrap().bytes(), secret.bytes(), "replaced");
    }

    /// The base64 and the key id are Python's.
    ///
    /// Rules: DH-165.
    #[test]
    fn the_text_is_that_of_the_sheet() {
        let secret = Secret::new(&std::array::from_fn::<u8, 32, _>(|i| i as u8)).unwrap();
        let text = "tgk1:58f6710d886c55ea:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n";
        assert_eq!(*key_text(&secret), text);
    }

    /// Rules: DH-165, G-07.
    #[test]
    fn files_that_others_can_read_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let text = key_text(&generate().unwrap());
        for (mode, accepted) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o620, false)]
        {
            with_mode(&path, &text, mode);
            match read_key_file(&path) {
                Ok(_) => assert!(accepted, "{mode:o}"),
                Err(SecretError::Exposed { mode: found, .. }) => assert!(!accepted && found == mode),
                Err(other) => panic!("{other}"),
            }
        }
        let link = dir.path().join("link");
        with_mode(&path, &text, 0o600);
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(read_key_file(&link).is_err(), "a link could point anywhere a moment later");
        assert!(matches!(read_key_file(dir.path()), Err(SecretError::NotAFile { .. })));
        if geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(1), None).unwrap();
            assert!(matches!(read_key_file(&path), Err(SecretError::Exposed { uid: 1, .. })));
        }
    }

    /// Rules: DH-161, DH-164, DH-165, G-07.
    #[test]
    fn texts_that_are_no_key_are_refused_without_showing_them() {
        let fault = |text: &str| match parse(text.as_bytes()).err() {
            Some(Refused::Fault(fault)) => Some(fault),
            _ => None,
        };
        let good = "tgk1:58f6710d886c55ea:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        assert!(parse(good.as_bytes()).is_ok());
        assert_eq!(fault(&good.replace("tgk1", "tgk2")), Some(KeyTextFault::Form));
        assert_eq!(fault("tgk1:58f6710d886c55ea"), Some(KeyTextFault::Form));
        assert_eq!(fault(&good.replace("ea:", "EA:")), Some(KeyTextFault::KeyId));
        assert_eq!(fault(&good.replace("58f6", "+8f6")), Some(KeyTextFault::KeyId));
        assert_eq!(fault(&good.replace("=", "")), Some(KeyTextFault::Base64));
        assert_eq!(fault(&format!("{good}\n\n")), Some(KeyTextFault::Base64));
        assert!(matches!(fault(&good.replace("AAEC", "AAED")), Some(KeyTextFault::OtherKey { .. })));
        // Eight bytes, with their key id.
        let short = Secret::new(&[9; 16]).unwrap().key_id();
        let refused = parse(format!("tgk1:{short}:AAECAwQFBgc=").as_bytes()).err();
        assert!(matches!(refused, Some(Refused::Unusable(SecretUnusable::Length { len: 8 }))));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        with_mode(&path, &format!("{good}{}", "x".repeat(100)), 0o600);
        let error = read_key_file(&path).unwrap_err();
        assert!(matches!(error, SecretError::Text { fault: KeyTextFault::TooLong, .. }));
        with_mode(&path, &good.replace("AAEC", "AAED"), 0o600);
        let shown = format!("{:?}", read_key_file(&path).unwrap_err());
        assert!(!shown.contains("AwQF"), "{shown}");
    }

    /// Rules: DH-165.
    #[test]
    fn secrets_come_from_descriptors_and_callbacks() {
        let secret = generate().unwrap();
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(key_text(&secret).as_bytes()).unwrap();
        drop(writer);
        let source = SecretSource::Descriptor(reader.as_raw_fd() as u32);
        assert_eq!(source.load().unwrap().bytes(), secret.bytes());
        assert!(matches!(source.load(), Err(SecretError::Text { fault: KeyTextFault::Form, .. })));
        let copy = secret.clone();
        let source = SecretSource::Callback(Arc::new(move || Ok(copy.clone())));
        assert_eq!(source.load().unwrap().bytes(), secret.bytes());
        assert_eq!(format!("{source:?}"), "Callback(..)");
    }
}
