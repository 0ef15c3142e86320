//! Region URIs and fallback URIs (chapter 4).
//!
//! A region URI names one file of shared memory in a message:
//!
//! ```text
//! region-uri = "shm:file?" parameter [ "|" parameter ]
//! parameter  = "path=/" *( 0x21-0x7E without "?" and "|" )  |  "require_hugepages=" ( "true" / "false" )
//! ```
//!
//! `path` is required, each parameter occurs at most once, the order is free when reading (TP-042). We write `path`
//! first and the flag only when it is true (TP-040). Parsing says nothing about whether the path may be opened:
//! containment and file checks are the region module's work.

use std::fmt;
use std::path::Path;

use thiserror::Error;

use crate::channel::Channel;

/// Longest region URI that is accepted (TP-044).
pub const MAX_PARSED_LEN: usize = 4096;
/// Longest region URI that is emitted (TP-044).
pub const MAX_EMITTED_LEN: usize = 1023;

const PREFIX: &str = "shm:file?";
const PATH_KEY: &str = "path";
const HUGEPAGES_KEY: &str = "require_hugepages";

/// A syntactically valid region URI: an absolute path of printable ASCII and the hugepage flag.
///
/// Two URIs are equal when path and flag are equal, however they were spelled (TP-484).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RegionUri {
    path: String,
    require_hugepages: bool,
}

impl RegionUri {
    /// Parses the bytes of a `regionUri` field (TP-038 to TP-044, TP-047).
    ///
    /// # Errors
    /// [`UriError`] names the part that breaks the grammar.
    pub fn parse(uri: &[u8]) -> Result<Self, UriError> {
        if uri.len() > MAX_PARSED_LEN {
            return Err(UriError::TooLong { len: uri.len(), max: MAX_PARSED_LEN });
        }
        let parameters =
            uri.strip_prefix(PREFIX.as_bytes()).ok_or_else(|| UriError::Scheme { found: excerpt(uri) })?;

        let mut path = None;
        let mut require_hugepages = None;
        for parameter in parameters.split(|&byte| byte == b'|') {
            let mut halves = parameter.splitn(2, |&byte| byte == b'=');
            let key = halves.next().unwrap_or_default();
            let Some(value) = halves.next() else {
                return Err(UriError::Parameter { found: excerpt(parameter) });
            };
            if key == PATH_KEY.as_bytes() {
                set_once(&mut path, PATH_KEY, checked_path(value)?)?;
            } else if key == HUGEPAGES_KEY.as_bytes() {
                set_once(&mut require_hugepages, HUGEPAGES_KEY, parse_flag(value)?)?;
            } else {
                return Err(UriError::Parameter { found: excerpt(parameter) });
            }
        }
        let path = path.ok_or(UriError::MissingPath)?;
        Ok(Self { path, require_hugepages: require_hugepages.unwrap_or(false) })
    }

    /// Makes the URI of a region we created.
    ///
    /// # Errors
    /// [`UriError`] when the path is not expressible (relative, bytes outside the grammar) or the emitted URI would be
    /// longer than [`MAX_EMITTED_LEN`].
    pub fn new(path: impl AsRef<Path>, require_hugepages: bool) -> Result<Self, UriError> {
        let path = checked_path(path.as_ref().as_os_str().as_encoded_bytes())?;
        let uri = Self { path, require_hugepages };
        uri.emit()?;
        Ok(uri)
    }

    /// The absolute path of the region file.
    #[must_use]
    pub fn path(&self) -> &Path {
        Path::new(&self.path)
    }

    /// Whether the file must live on hugetlbfs (TP-045).
    #[must_use]
    pub const fn require_hugepages(&self) -> bool {
        self.require_hugepages
    }

    /// The minimal form (TP-040), for a message.
    ///
    /// # Errors
    /// [`UriError::TooLong`] for a parsed URI that is within the bound for reading but not within ours for writing
    /// (TP-044).
    pub fn emit(&self) -> Result<String, UriError> {
        let text = self.to_string();
        if text.len() > MAX_EMITTED_LEN {
            return Err(UriError::TooLong { len: text.len(), max: MAX_EMITTED_LEN });
        }
        Ok(text)
    }
}

impl fmt::Display for RegionUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{PATH_KEY}={}", self.path)?;
        if self.require_hugepages {
            write!(f, "|{HUGEPAGES_KEY}=true")?;
        }
        Ok(())
    }
}

/// Why a region URI was refused. Excerpts are escaped and cut.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UriError {
    /// Longer than the bound (TP-044).
    #[error("region URI has {len} bytes, at most {max} are allowed: shorten the base directory or namespace")]
    TooLong {
        /// Length in bytes.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// Another scheme than `shm:file` (TP-038).
    #[error("region URI must start with `shm:file?`, found `{found}`")]
    Scheme {
        /// Start of the URI.
        found: String,
    },
    /// An empty, unknown or value-less parameter (TP-039, TP-047).
    #[error("region URI parameter must be `path=...` or `require_hugepages=...`, found `{found}`")]
    Parameter {
        /// The parameter.
        found: String,
    },
    /// A parameter is written twice (TP-039).
    #[error("region URI states `{key}` twice")]
    Duplicate {
        /// The key.
        key: &'static str,
    },
    /// No `path` (TP-039).
    #[error("region URI has no `path`")]
    MissingPath,
    /// The path is empty or does not start with `/` (TP-039).
    #[error("region path must be absolute, found `{found}`")]
    RelativePath {
        /// The path.
        found: String,
    },
    /// A byte that the grammar does not allow (TP-043).
    #[error("region path has byte {byte:#04x} at {offset}; allowed are 0x21-0x7e without `?` and `|`")]
    PathByte {
        /// The byte.
        byte: u8,
        /// Its place in the path.
        offset: usize,
    },
    /// Neither `true` nor `false` (TP-039).
    #[error("region URI needs `require_hugepages=true` or `=false`, found `{found}`")]
    Flag {
        /// The value.
        found: String,
    },
}

/// Where a consumer finds payloads when it must not use shared memory (`payloadFallbackUri`, 4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FallbackUri {
    /// An Aeron channel that carries bridged payloads.
    Aeron(Channel),
    /// The id of a named bridge.
    Bridge(String),
}

impl FallbackUri {
    /// Parses the field. `None` means "no fallback": the field is empty, or holds a form we do not know, which counts
    /// as empty (TP-048); a caller that wants to log the latter compares the input with the empty string.
    #[must_use]
    pub fn parse(uri: &[u8]) -> Option<Self> {
        let uri = std::str::from_utf8(uri).ok()?;
        if uri.starts_with("aeron:") {
            return Channel::parse(uri).ok().map(Self::Aeron);
        }
        let id = uri.strip_prefix("bridge://")?;
        let valid = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic());
        valid.then(|| Self::Bridge(id.to_owned()))
    }
}

/// Checks that `path` is absolute and can stand in a region URI, without building one (TP-039, TP-043).
pub(crate) fn checked_path(path: &[u8]) -> Result<String, UriError> {
    if path.first() != Some(&b'/') {
        return Err(UriError::RelativePath { found: excerpt(path) });
    }
    let forbidden = |&byte: &u8| !byte.is_ascii_graphic() || byte == b'?' || byte == b'|';
    if let Some(offset) = path.iter().position(forbidden) {
        let byte = path.get(offset).copied().unwrap_or_default();
        return Err(UriError::PathByte { byte, offset });
    }
    Ok(path.iter().copied().map(char::from).collect())
}

fn parse_flag(value: &[u8]) -> Result<bool, UriError> {
    match value {
        b"true" => Ok(true),
        b"false" => Ok(false),
        other => Err(UriError::Flag { found: excerpt(other) }),
    }
}

fn set_once<T>(slot: &mut Option<T>, key: &'static str, value: T) -> Result<(), UriError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(UriError::Duplicate { key }),
    }
}

/// Foreign bytes for an error message: escaped, at most 48 of them.
fn excerpt(bytes: &[u8]) -> String {
    const MAX: usize = 48;
    match bytes.get(..MAX) {
        Some(start) if bytes.len() > MAX => format!("{}...", start.escape_ascii()),
        _ => bytes.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(uri: &str) -> Result<RegionUri, UriError> {
        RegionUri::parse(uri.as_bytes())
    }

    /// Rules: TP-039, TP-041, TP-042, TC-017, TC-018, TC-019.
    #[test]
    fn accepts_every_legal_spelling() {
        let plain = parse("shm:file?path=/dev/shm/a").unwrap();
        assert_eq!(plain.path(), Path::new("/dev/shm/a"));
        assert!(!plain.require_hugepages());
        assert_eq!(parse("shm:file?path=/dev/shm/a|require_hugepages=false").unwrap(), plain);

        let huge = parse("shm:file?require_hugepages=true|path=/x").unwrap();
        assert_eq!((huge.path(), huge.require_hugepages()), (Path::new("/x"), true));
        assert_eq!(parse("shm:file?path=/x|require_hugepages=true").unwrap(), huge);
        assert_eq!(parse("shm:file?path=/a=b&c").unwrap().path(), Path::new("/a=b&c"));
    }

    /// Rules: TP-038, TP-039, TP-047, TC-020, TC-021, TC-022.
    #[test]
    fn refuses_other_schemes_and_parameters() {
        for uri in ["shm:posix?path=/a", "file:/a", "shm:file:path=/a", "SHM:file?path=/a", "shm:file", ""] {
            assert!(matches!(parse(uri), Err(UriError::Scheme { .. })), "{uri}");
        }
        for uri in [
            "shm:file?path=/a|",
            "shm:file?|path=/a",
            "shm:file?",
            "shm:file?p=/a",
            "shm:file?path=/a|r=true",
            "shm:file?path=/a|foo=1",
            "shm:file?path",
            "shm:file? path=/a",
        ] {
            assert!(matches!(parse(uri), Err(UriError::Parameter { .. })), "{uri}");
        }
        for uri in ["shm:file?path=", "shm:file?path=a/b", "shm:file?path=C:\\x", "shm:file?path=C:/x"] {
            assert!(matches!(parse(uri), Err(UriError::RelativePath { .. })), "{uri}");
        }
        let twice = parse("shm:file?path=/a|path=/b");
        assert_eq!(twice, Err(UriError::Duplicate { key: "path" }));
        let twice = parse("shm:file?path=/a|require_hugepages=true|require_hugepages=true");
        assert_eq!(twice, Err(UriError::Duplicate { key: "require_hugepages" }));
        assert_eq!(parse("shm:file?require_hugepages=true"), Err(UriError::MissingPath));
    }

    /// Rules: TP-039, TC-023.
    #[test]
    fn refuses_other_booleans() {
        for value in ["TRUE", "1", "", "true ", "False"] {
            let found = parse(&format!("shm:file?path=/a|require_hugepages={value}"));
            assert_eq!(found, Err(UriError::Flag { found: value.to_owned() }));
        }
    }

    /// Rules: TP-018, TP-043, TC-024.
    #[test]
    fn refuses_path_bytes_outside_the_grammar() {
        for byte in 0..=u8::MAX {
            let uri = [b"shm:file?path=/a".as_slice(), &[byte]].concat();
            let allowed = matches!(byte, 0x21..=0x3e | 0x40..=0x7b | 0x7d..=0x7e);
            assert_eq!(RegionUri::parse(&uri).is_ok(), allowed, "{byte:#04x}");
        }
        assert_eq!(parse("shm:file?path=/a b"), Err(UriError::PathByte { byte: b' ', offset: 2 }));
    }

    /// Rules: TP-044, TC-025.
    #[test]
    fn bounds_the_length() {
        let uri = |len: usize| format!("shm:file?path=/{}", "a".repeat(len - "shm:file?path=/".len()));
        let longest = parse(&uri(4096)).unwrap();
        assert_eq!(parse(&uri(4097)), Err(UriError::TooLong { len: 4097, max: 4096 }));
        assert_eq!(longest.emit(), Err(UriError::TooLong { len: 4096, max: 1023 }));

        let path = |len: usize| uri(len)["shm:file?path=".len()..].to_owned();
        assert_eq!(RegionUri::new(path(1023), false).unwrap().emit().unwrap().len(), 1023);
        assert_eq!(RegionUri::new(path(1024), false), Err(UriError::TooLong { len: 1024, max: 1023 }));
        let with_flag = 1023 - "|require_hugepages=true".len();
        assert!(RegionUri::new(path(with_flag), true).is_ok());
        assert!(RegionUri::new(path(with_flag + 1), true).is_err());
    }

    /// Rules: TP-040.
    #[test]
    fn emits_the_minimal_form() {
        let emit = |uri: &str| parse(uri).unwrap().emit().unwrap();
        assert_eq!(emit("shm:file?path=/a|require_hugepages=false"), "shm:file?path=/a");
        assert_eq!(
            emit("shm:file?require_hugepages=true|path=/a"),
            "shm:file?path=/a|require_hugepages=true"
        );
    }

    /// Rules: TP-048, TC-086.
    #[test]
    fn unknown_fallbacks_count_as_none() {
        for uri in
            ["", "http://x", "bridge://", "bridge://a b", "bridge:x", "aeron:", "aeron:ipc\0", "AERON:ipc"]
        {
            assert_eq!(FallbackUri::parse(uri.as_bytes()), None, "{uri}");
        }
        assert_eq!(FallbackUri::parse(b"\xff"), None);
        assert_eq!(FallbackUri::parse(b"bridge://b1"), Some(FallbackUri::Bridge("b1".to_owned())));
        let channel = Channel::parse("aeron:udp?endpoint=10.0.0.1:4000").unwrap();
        assert_eq!(FallbackUri::parse(channel.as_str().as_bytes()), Some(FallbackUri::Aeron(channel)));
    }

    proptest! {
        /// Rules: TP-040, TP-042, TP-043.
        #[test]
        fn round_trips(path in "/[!-<=>@-{}~]{0,200}", huge: bool) {
            let uri = RegionUri::new(&path, huge).unwrap();
            prop_assert_eq!(RegionUri::parse(uri.emit().unwrap().as_bytes()).unwrap(), uri.clone());
            let reversed = format!("shm:file?require_hugepages={huge}|path={path}");
            prop_assert_eq!(RegionUri::parse(reversed.as_bytes()).unwrap(), uri);
        }

        #[test]
        fn arbitrary_bytes_are_accepted_or_refused(
            tail in proptest::collection::vec(any::<u8>(), 0..80),
            parameters in "(path=|require_hugepages=|true|false|/|\\||a|=){0,8}",
        ) {
            let _ = RegionUri::parse(&tail);
            let _ = FallbackUri::parse(&tail);
            for rest in [tail.as_slice(), parameters.as_bytes()] {
                if let Ok(uri) = RegionUri::parse(&[b"shm:file?", rest].concat()) {
                    prop_assert_eq!(RegionUri::parse(uri.to_string().as_bytes()).unwrap(), uri.clone());
                    prop_assert!(uri.path().is_absolute());
                }
            }
        }
    }
}
