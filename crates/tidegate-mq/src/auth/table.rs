//! Users of PLAIN, known beforehand.

use super::{Authenticator, Credentials, Decision, DecisionFuture, Peer, PlainCredentials};
use crate::error::{Error, Result};

/// User names and their passwords, as authenticator of a PLAIN server (MQ-164). Who is admitted has the name as user id.
///
/// ```
/// use std::sync::Arc;
/// use tidegate_mq::{Options, auth::PlainTable, options::{Mechanism, PlainOptions}};
///
/// let users = PlainTable::new([("ann", "s3cret"), ("bob", "hunter2")])?;
/// let mut options = Options::default();
/// options.mechanism = Mechanism::Plain(PlainOptions::Server { authenticator: Some(Arc::new(users)) });
/// # Ok::<(), tidegate_mq::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct PlainTable {
    users: Vec<(String, PlainCredentials)>,
}

impl PlainTable {
    /// A table of names and passwords.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] when one of them is longer than 255 bytes.
    pub fn new<'a>(users: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let user = |(name, password): (&str, &str)| {
            let credentials = PlainCredentials::new(name.as_bytes(), password.as_bytes());
            let credentials = credentials.ok_or(Error::InvalidOption {
                option: "mechanism",
                problem: "user name and password are at most 255 bytes long",
            })?;
            Ok((name.to_owned(), credentials))
        };
        Ok(Self { users: users.into_iter().map(user).collect::<Result<_>>()? })
    }
}

impl Authenticator for PlainTable {
    /// Compares with every user, whoever it is, so that the time it takes does not tell who is known (MQ-137).
    fn authenticate(&self, peer: Peer) -> DecisionFuture {
        let found = match &peer.credentials {
            Credentials::Plain(shown) => self.users.iter().fold(None, |found, user| {
                let (_, known) = user;
                if known.matches(shown) { Some(user) } else { found }
            }),
            _ => None,
        };
        let decision = match found {
            Some((name, _)) => Decision::Admit { user_id: name.clone() },
            None => Decision::Refuse,
        };
        Box::pin(std::future::ready(decision))
    }
}
