//! Directory components, file modes and secrets: texts with rules of their own (5.1, 5.3).

use std::fmt;

use crate::uri;

/// The `<user>` of `tensorpool-<user>`: every byte outside `[A-Za-z0-9_-]` becomes `_`, no name becomes `unknown`.
/// The result is never empty and contains neither `.` nor `/` (TP-052).
#[must_use]
pub fn user_component(name: &[u8]) -> String {
    if name.is_empty() {
        return "unknown".to_owned();
    }
    name.iter().map(|&byte| if is_component_byte(byte) { char::from(byte) } else { '_' }).collect()
}

/// The `<namespace>` component: one or more of `[A-Za-z0-9_-]` (TP-052).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Namespace(String);

impl Namespace {
    /// What a namespace consists of, for error messages.
    pub(super) const ALLOWED: &'static str = "one or more of A-Z, a-z, 0-9, `_` and `-`";

    /// Accepts a namespace; `None` for one that could not be a directory of its own.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let valid = !text.is_empty() && text.bytes().all(is_component_byte);
        valid.then(|| Self(text.to_owned()))
    }

    /// The component.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Permission bits of region files; written in octal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileMode(u32);

impl FileMode {
    /// What a mode looks like, for error messages.
    pub(super) const ALLOWED: &'static str = "an octal text from \"1\" to \"777\" such as \"660\"";

    /// Reads octal digits; `None` for anything else, for no permission at all, and for bits beyond `777`.
    #[must_use]
    pub fn from_octal(text: &str) -> Option<Self> {
        let octal = !text.is_empty() && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        let bits = if octal { u32::from_str_radix(text, 8).ok()? } else { return None };
        (1..=0o777).contains(&bits).then_some(Self(bits))
    }

    /// The bits, as chmod takes them.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl Default for FileMode {
    fn default() -> Self {
        Self(0o660)
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03o}", self.0)
    }
}

/// A text that is kept out of logs and dumps: printable ASCII, not empty (TP-018).
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Accepts a secret; `None` when it is empty or could not be sent.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let valid = !text.is_empty() && is_printable(text);
        valid.then(|| Self(text.to_owned()))
    }

    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

/// Whether a text can be sent as it is: printable ASCII (TP-018).
pub(super) fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

/// Whether a directory is absolute and can stand in a region URI.
pub(super) fn is_region_dir(path: &std::path::Path) -> bool {
    uri::checked_path(path.as_os_str().as_encoded_bytes()).is_ok()
}

const fn is_component_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}
