//! The small vocabulary every module uses to talk to the C library.

use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

pub(crate) use rusteron_media_driver::bindings::*;

use crate::error::AeronError;

/// Turns a C return value into a result: negative means that the calling thread's Aeron error says why.
pub(crate) fn check(result: c_int, operation: &'static str) -> Result<c_int, AeronError> {
    if result < 0 { Err(last_error(operation)) } else { Ok(result) }
}

/// The calling thread's Aeron error, which is cleared.
pub(crate) fn last_error(operation: &'static str) -> AeronError {
    let (code, message) = take_last_error();
    AeronError::Library { operation, code, message }
}

/// Code, in the convention of [`crate::error`], and text of the calling thread's Aeron error, which is cleared.
pub(crate) fn take_last_error() -> (i32, Box<str>) {
    // SAFETY: reads this thread's error state; callable at any time.
    let code = unsafe { aeron_errcode() };
    // SAFETY: as above.
    let message = unsafe { aeron_errmsg() };
    // SAFETY: `aeron_errmsg` returns null or this thread's NUL-terminated buffer, which lives until the next Aeron call of
    // this thread; the text is copied before that.
    let text = unsafe { text_of(message) };
    // SAFETY: writes this thread's error state only.
    unsafe { aeron_err_clear() };
    (code.saturating_neg(), text)
}

/// Copies a C text.
///
/// # Safety
/// `text` must be null or point to a NUL-terminated string that stays valid and unchanged during the call.
pub(crate) unsafe fn text_of(text: *const c_char) -> Box<str> {
    if text.is_null() {
        return "".into();
    }
    // SAFETY: not null, and by this function's contract NUL-terminated and valid.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_string_lossy().trim().into()
}

/// Runs what a C callback does and keeps a panic from unwinding into C, where it would abort the process.
pub(crate) fn contained(callback: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(callback)).is_err() {
        // The panic hook has reported it already; a callback has nobody to return an error to.
    }
}

/// Whole milliseconds, refusing what Aeron would misunderstand.
pub(crate) fn millis(value: Duration, option: &'static str) -> Result<u64, AeronError> {
    match u64::try_from(value.as_millis()) {
        Ok(0) => Err(AeronError::InvalidOption { option, reason: "must be at least one millisecond" }),
        Ok(millis) if millis <= MAX_NANOS / 1_000_000 => Ok(millis),
        _ => Err(AeronError::InvalidOption { option, reason: "is longer than 100 years" }),
    }
}

/// Whole nanoseconds, refusing what Aeron would misunderstand.
pub(crate) fn nanos(value: Duration, option: &'static str) -> Result<u64, AeronError> {
    match u64::try_from(value.as_nanos()) {
        Ok(0) => Err(AeronError::InvalidOption { option, reason: "must not be zero" }),
        Ok(nanos) if nanos <= MAX_NANOS => Ok(nanos),
        _ => Err(AeronError::InvalidOption { option, reason: "is longer than 100 years" }),
    }
}

/// A C string of an option's text.
pub(crate) fn c_text(text: &[u8], option: &'static str, max_length: usize) -> Result<CString, AeronError> {
    if text.len() > max_length {
        return Err(AeronError::InvalidOption { option, reason: "is longer than Aeron allows" });
    }
    CString::new(text).map_err(|_| AeronError::InvalidOption { option, reason: "contains a NUL byte" })
}

/// 100 years: far from overflowing when Aeron adds it to a clock.
const MAX_NANOS: u64 = 100 * 365 * 24 * 3_600 * 1_000_000_000;
