//! The name in `tensorpool-<user>`.

use std::fs;
use std::os::unix::fs::MetadataExt;

/// Name of the user this process acts as; empty when there is none (TP-052 then says `unknown`).
///
/// The account database is asked first, since `$USER` survives changes of the user.
#[must_use]
pub fn user_name() -> Vec<u8> {
    // The kernel gives the files of a process to its effective user.
    let uid = fs::metadata("/proc/self").map(|metadata| metadata.uid());
    let accounts = fs::read("/etc/passwd").unwrap_or_default();
    uid.ok()
        .and_then(|uid| account_name(&accounts, uid))
        .or_else(|| std::env::var_os("USER").map(std::ffi::OsString::into_encoded_bytes))
        .unwrap_or_default()
}

/// Finds `name:password:uid:...`.
fn account_name(accounts: &[u8], uid: u32) -> Option<Vec<u8>> {
    let wanted = uid.to_string();
    accounts.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.split(|&byte| byte == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)? == wanted.as_bytes()).then(|| name.to_vec())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_with_the_uid_names_the_user() {
        let accounts = b"root:x:0:0:root:/root:/bin/sh\n\nbroken\na.b:x:1000:1000::/home/a:/bin/sh\n";
        assert_eq!(account_name(accounts, 0), Some(b"root".to_vec()));
        assert_eq!(account_name(accounts, 1000), Some(b"a.b".to_vec()));
        assert_eq!(account_name(accounts, 100), None);
    }
}
