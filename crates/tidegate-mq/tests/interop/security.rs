//! What both sides are told about PLAIN and CURVE.

use std::sync::Arc;

use tidegate_mq::{
    PublicKey, SecretKey, SocketType,
    auth::{Credentials, Decision, Peer as Asking},
    options::{CurveOptions, CurvePolicy, Mechanism as Options, PlainOptions},
};

use crate::peer::{hex, words};

pub(crate) const USER: &str = "alice";
pub(crate) const PASSWORD: &str = "secret";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    Null,
    Plain,
    Curve,
}

/// Who is the server of a mechanism that has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Nobody,
    Ours,
    Theirs,
}

impl Mechanism {
    /// The roles that a cell is run with.
    pub(crate) fn servers(self, theirs: SocketType) -> &'static [Role] {
        match self {
            Self::Null => &[Role::Nobody],
            // MQ-538: a PLAIN server must authenticate, and a libzmq REQ that does so is of no use.
            Self::Plain if theirs == SocketType::Req => &[Role::Ours],
            Self::Plain | Self::Curve => &[Role::Ours, Role::Theirs],
        }
    }

    /// Our option; as server we admit the one client that there is.
    pub(crate) fn ours(self, server: Role) -> Options {
        match (self, server) {
            (Self::Null, _) => Options::Null,
            (Self::Plain, Role::Theirs) => {
                Options::Plain(PlainOptions::Client { username: USER.into(), password: PASSWORD.into() })
            }
            (Self::Plain, _) => Options::Plain(PlainOptions::Server {
                authenticator: Some(Arc::new(|peer: Asking| judge(&peer))),
            }),
            (Self::Curve, Role::Theirs) => Options::Curve(CurveOptions::Client {
                server_key: server_key().public_key(),
                secret_key: client_key(),
            }),
            (Self::Curve, _) => Options::Curve(CurveOptions::Server {
                secret_key: server_key(),
                policy: CurvePolicy::AllowList(Arc::new([client_key().public_key()])),
            }),
        }
    }

    /// Their options, for `open`.
    pub(crate) fn theirs(self, server: Role) -> String {
        match (self, server) {
            (Self::Null, _) => String::new(),
            (Self::Plain, Role::Theirs) => "plain_server=1".into(),
            (Self::Plain, _) => {
                format!("plain_username={} plain_password={}", words([USER]), words([PASSWORD]))
            }
            (Self::Curve, Role::Theirs) => {
                format!("curve_server=1 curve_secretkey={}", secret(&server_key()))
            }
            (Self::Curve, _) => {
                let (client, server) = (client_key(), server_key());
                let [client_public, server_public] = [&client, &server].map(|key| public(&key.public_key()));
                format!(
                    "curve_publickey={client_public} curve_secretkey={} curve_serverkey={server_public}",
                    secret(&client)
                )
            }
        }
    }

    /// What a client shows, for `zap`.
    pub(crate) fn credentials(self) -> String {
        match self {
            Self::Null => String::new(),
            Self::Plain => words([USER, PASSWORD]),
            Self::Curve => public(&client_key().public_key()),
        }
    }
}

fn judge(peer: &Asking) -> Decision {
    match &peer.credentials {
        Credentials::Plain(shown)
            if shown.username.as_bytes() == USER.as_bytes()
                && shown.password.as_bytes() == PASSWORD.as_bytes() =>
        {
            Decision::Admit { user_id: USER.into() }
        }
        _ => Decision::Refuse,
    }
}

fn client_key() -> SecretKey {
    SecretKey::from_bytes(std::array::from_fn(|index| 0x01 + index as u8))
}

fn server_key() -> SecretKey {
    SecretKey::from_bytes(std::array::from_fn(|index| 0x41 + index as u8))
}

fn secret(key: &SecretKey) -> String {
    hex(key.expose())
}

fn public(key: &PublicKey) -> String {
    hex(key.as_bytes())
}
