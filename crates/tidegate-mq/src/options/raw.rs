//! Options by libzmq's numbers and in libzmq's encoding: native-endian integers, bytes, text (MQ-287 to MQ-352).

use std::{os::fd::AsRawFd, time::Duration};

use bytes::Bytes;
use tidegate_zmtp::mechanism::curve::{KeyError, PublicKey, SecretKey};

use super::{
    CurveOptions, CurvePolicy, IpFilter, Mechanism, Options, Password, PlainOptions, ReconnectStop,
    RouterNotify, RoutingId,
};
use crate::error::Error;

/// One option, for the reference.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct OptionInfo {
    /// Name of the field.
    pub name: &'static str,
    /// libzmq's number, where libzmq has the option.
    pub number: Option<i32>,
    /// Default, as an expression.
    pub default: &'static str,
    /// Whether it takes effect on existing connections.
    pub live: bool,
    /// What it does.
    pub description: &'static str,
}

/// Translates between a field and libzmq's bytes.
pub(super) trait Codec<T> {
    fn set(&self, option: &'static str, field: &mut T, value: &[u8]) -> Result<(), Error>;
    fn get(&self, field: &T) -> Option<Vec<u8>>;

    /// Whether the field, which may have been set without [`set`](Self::set), has a value that can be.
    fn check(&self, option: &'static str, field: &T) -> Result<(), Error> {
        let _ = (option, field);
        Ok(())
    }
}

pub(super) struct Bool;
/// The same where libzmq takes every number that is not negative.
pub(super) struct Flag;
pub(super) struct OptionalBool;
pub(super) struct U64;
pub(super) struct OptionalI64;
/// An integer in a range; `i32::MAX` is no limit but that of the encoding.
pub(super) struct Int {
    pub(super) min: i32,
    pub(super) max: i32,
}
/// An integer of which one value means "none".
pub(super) struct OptionalInt {
    pub(super) none: i32,
}
/// Milliseconds of which one value means "none".
pub(super) struct Millis {
    pub(super) none: i32,
}
pub(super) struct PlainMillis;
/// Milliseconds, rounded down to tenths of a second, of at most 16 bits (MQ-174).
pub(super) struct Ttl;
pub(super) struct Text {
    pub(super) max: usize,
}
pub(super) struct Blob;
pub(super) struct Id;
/// One `X-name:value`, added to a list.
pub(super) struct Property;
pub(super) struct Notify;
/// A network, added to a list; an empty value empties it.
pub(super) struct Filters;
/// A number, added to a list; an empty value empties it.
pub(super) struct Ids;
pub(super) struct Stop;
/// An option that bindings cannot set by number.
pub(super) struct Unset;

fn invalid(option: &'static str, problem: &'static str) -> Error {
    Error::InvalidOption { option, problem }
}

fn int(option: &'static str, value: &[u8]) -> Result<i32, Error> {
    match value.try_into() {
        Ok(bytes) => Ok(i32::from_ne_bytes(bytes)),
        Err(_) => Err(invalid(option, "the value must be an integer of 4 bytes")),
    }
}

fn int_bytes(value: impl TryInto<i32>) -> Option<Vec<u8>> {
    Some(value.try_into().unwrap_or(i32::MAX).to_ne_bytes().to_vec())
}

fn non_negative(option: &'static str, value: i32) -> Result<u32, Error> {
    u32::try_from(value).map_err(|_| invalid(option, "the value must not be negative"))
}

fn as_millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

impl Codec<bool> for Bool {
    fn set(&self, option: &'static str, field: &mut bool, value: &[u8]) -> Result<(), Error> {
        *field = match int(option, value)? {
            0 => false,
            1 => true,
            _ => return Err(invalid(option, "the value must be 0 or 1")),
        };
        Ok(())
    }

    fn get(&self, field: &bool) -> Option<Vec<u8>> {
        int_bytes(i32::from(*field))
    }
}

impl Codec<bool> for Flag {
    fn set(&self, option: &'static str, field: &mut bool, value: &[u8]) -> Result<(), Error> {
        *field = non_negative(option, int(option, value)?)? != 0;
        Ok(())
    }

    fn get(&self, field: &bool) -> Option<Vec<u8>> {
        Bool.get(field)
    }
}

impl Codec<Option<bool>> for OptionalBool {
    fn set(&self, option: &'static str, field: &mut Option<bool>, value: &[u8]) -> Result<(), Error> {
        *field = match int(option, value)? {
            -1 => None,
            0 => Some(false),
            1 => Some(true),
            _ => return Err(invalid(option, "the value must be -1, 0 or 1")),
        };
        Ok(())
    }

    fn get(&self, field: &Option<bool>) -> Option<Vec<u8>> {
        int_bytes(field.map_or(-1, i32::from))
    }
}

impl Codec<u64> for U64 {
    fn set(&self, option: &'static str, field: &mut u64, value: &[u8]) -> Result<(), Error> {
        let bytes =
            value.try_into().map_err(|_| invalid(option, "the value must be an integer of 8 bytes"))?;
        *field = u64::from_ne_bytes(bytes);
        Ok(())
    }

    fn get(&self, field: &u64) -> Option<Vec<u8>> {
        Some(field.to_ne_bytes().to_vec())
    }
}

impl Codec<Option<u64>> for OptionalI64 {
    fn set(&self, option: &'static str, field: &mut Option<u64>, value: &[u8]) -> Result<(), Error> {
        let bytes =
            value.try_into().map_err(|_| invalid(option, "the value must be an integer of 8 bytes"))?;
        *field = u64::try_from(i64::from_ne_bytes(bytes)).ok();
        Ok(())
    }

    fn get(&self, field: &Option<u64>) -> Option<Vec<u8>> {
        let value = field.map_or(-1, |value| i64::try_from(value).unwrap_or(i64::MAX));
        Some(value.to_ne_bytes().to_vec())
    }
}

impl Codec<u32> for Int {
    fn set(&self, option: &'static str, field: &mut u32, value: &[u8]) -> Result<(), Error> {
        let value = non_negative(option, int(option, value)?)?;
        self.check(option, &value)?;
        *field = value;
        Ok(())
    }

    fn get(&self, field: &u32) -> Option<Vec<u8>> {
        int_bytes(*field)
    }

    fn check(&self, option: &'static str, field: &u32) -> Result<(), Error> {
        if i64::from(*field) < i64::from(self.min) {
            return Err(invalid(option, "the value is too small"));
        }
        if self.max != i32::MAX && i64::from(*field) > i64::from(self.max) {
            return Err(invalid(option, "the value is too large"));
        }
        Ok(())
    }
}

impl Codec<Option<u32>> for OptionalInt {
    fn set(&self, option: &'static str, field: &mut Option<u32>, value: &[u8]) -> Result<(), Error> {
        let value = int(option, value)?;
        *field = if value == self.none { None } else { Some(non_negative(option, value)?) };
        Ok(())
    }

    fn get(&self, field: &Option<u32>) -> Option<Vec<u8>> {
        field.map_or_else(|| int_bytes(self.none), int_bytes)
    }
}

impl Codec<Option<Duration>> for Millis {
    fn set(&self, option: &'static str, field: &mut Option<Duration>, value: &[u8]) -> Result<(), Error> {
        let value = int(option, value)?;
        *field = if value == self.none {
            None
        } else {
            Some(Duration::from_millis(non_negative(option, value)?.into()))
        };
        Ok(())
    }

    fn get(&self, field: &Option<Duration>) -> Option<Vec<u8>> {
        int_bytes(field.map_or(self.none, as_millis))
    }
}

impl Codec<Duration> for PlainMillis {
    fn set(&self, option: &'static str, field: &mut Duration, value: &[u8]) -> Result<(), Error> {
        *field = Duration::from_millis(non_negative(option, int(option, value)?)?.into());
        Ok(())
    }

    fn get(&self, field: &Duration) -> Option<Vec<u8>> {
        int_bytes(as_millis(*field))
    }
}

impl Codec<Duration> for Ttl {
    fn set(&self, option: &'static str, field: &mut Duration, value: &[u8]) -> Result<(), Error> {
        let tenths = non_negative(option, int(option, value)?)? / 100;
        let tenths = u16::try_from(tenths).map_err(|_| invalid(option, "the most is 6553599 ms"))?;
        *field = Duration::from_millis(u64::from(tenths) * 100);
        Ok(())
    }

    fn get(&self, field: &Duration) -> Option<Vec<u8>> {
        int_bytes(as_millis(*field))
    }
}

impl Codec<String> for Text {
    fn set(&self, option: &'static str, field: &mut String, value: &[u8]) -> Result<(), Error> {
        let text =
            std::str::from_utf8(value).map_err(|_| invalid(option, "the text is not UTF-8"))?.to_owned();
        self.check(option, &text)?;
        *field = text;
        Ok(())
    }

    fn get(&self, field: &String) -> Option<Vec<u8>> {
        Some(field.clone().into_bytes())
    }

    fn check(&self, option: &'static str, field: &String) -> Result<(), Error> {
        if field.len() > self.max {
            return Err(invalid(option, "the text is too long"));
        }
        Ok(())
    }
}

impl Codec<Bytes> for Blob {
    fn set(&self, _option: &'static str, field: &mut Bytes, value: &[u8]) -> Result<(), Error> {
        *field = Bytes::copy_from_slice(value);
        Ok(())
    }

    fn get(&self, field: &Bytes) -> Option<Vec<u8>> {
        Some(field.to_vec())
    }
}

impl Codec<Option<RoutingId>> for Id {
    fn set(&self, _option: &'static str, field: &mut Option<RoutingId>, value: &[u8]) -> Result<(), Error> {
        *field = Some(RoutingId::new(Bytes::copy_from_slice(value))?);
        Ok(())
    }

    fn get(&self, field: &Option<RoutingId>) -> Option<Vec<u8>> {
        Some(field.as_ref().map_or_else(Vec::new, |id| id.as_bytes().to_vec()))
    }
}

impl Codec<Vec<(String, String)>> for Property {
    fn set(
        &self,
        option: &'static str,
        field: &mut Vec<(String, String)>,
        value: &[u8],
    ) -> Result<(), Error> {
        let text = std::str::from_utf8(value).map_err(|_| invalid(option, "the text is not UTF-8"))?;
        match text.split_once(':') {
            Some((name, value))
                if name.starts_with("X-") && name.len() > 2 && !value.is_empty() && name.len() <= 255 =>
            {
                field.push((name.to_owned(), value.to_owned()));
                Ok(())
            }
            _ => Err(invalid(option, "write X-name:value, neither of them empty")),
        }
    }

    fn get(&self, _field: &Vec<(String, String)>) -> Option<Vec<u8>> {
        None
    }
}

impl Codec<Vec<IpFilter>> for Filters {
    fn set(&self, option: &'static str, field: &mut Vec<IpFilter>, value: &[u8]) -> Result<(), Error> {
        if value.is_empty() {
            field.clear();
            return Ok(());
        }
        let text = std::str::from_utf8(value).map_err(|_| invalid(option, "the text is not UTF-8"))?;
        field.push(text.trim_end_matches('\0').parse()?);
        Ok(())
    }

    fn get(&self, _field: &Vec<IpFilter>) -> Option<Vec<u8>> {
        None
    }
}

impl Codec<Vec<u32>> for Ids {
    fn set(&self, option: &'static str, field: &mut Vec<u32>, value: &[u8]) -> Result<(), Error> {
        if value.is_empty() {
            field.clear();
        } else {
            field.push(int(option, value)?.cast_unsigned());
        }
        Ok(())
    }

    fn get(&self, _field: &Vec<u32>) -> Option<Vec<u8>> {
        None
    }
}

impl Codec<RouterNotify> for Notify {
    fn set(&self, option: &'static str, field: &mut RouterNotify, value: &[u8]) -> Result<(), Error> {
        let bits = int(option, value)?;
        if !(0..=3).contains(&bits) {
            return Err(invalid(option, "the bits are 1 (connect) and 2 (disconnect)"));
        }
        *field = RouterNotify { connect: bits & 1 != 0, disconnect: bits & 2 != 0 };
        Ok(())
    }

    fn get(&self, field: &RouterNotify) -> Option<Vec<u8>> {
        int_bytes(i32::from(field.connect) | i32::from(field.disconnect) << 1)
    }
}

impl Codec<ReconnectStop> for Stop {
    fn set(&self, option: &'static str, field: &mut ReconnectStop, value: &[u8]) -> Result<(), Error> {
        let bits = int(option, value)?;
        if !(0..=7).contains(&bits) {
            return Err(invalid(
                option,
                "the bits are 1 (refused), 2 (handshake failed) and 4 (after disconnect)",
            ));
        }
        *field = ReconnectStop {
            connection_refused: bits & 1 != 0,
            handshake_failed: bits & 2 != 0,
            after_disconnect: bits & 4 != 0,
        };
        Ok(())
    }

    fn get(&self, field: &ReconnectStop) -> Option<Vec<u8>> {
        int_bytes(
            i32::from(field.connection_refused)
                | i32::from(field.handshake_failed) << 1
                | i32::from(field.after_disconnect) << 2,
        )
    }
}

impl<T> Codec<T> for Unset {
    fn set(&self, _option: &'static str, _field: &mut T, _value: &[u8]) -> Result<(), Error> {
        Err(Error::NotSupported("this option has no number"))
    }

    fn get(&self, _field: &T) -> Option<Vec<u8>> {
        None
    }
}

pub(super) const XPUB_VERBOSE: i32 = 40;
pub(super) const XPUB_VERBOSER: i32 = 78;
const IPV4ONLY: i32 = 31;
const MECHANISM: i32 = 43;
const PLAIN_SERVER: i32 = 44;
const PLAIN_USERNAME: i32 = 45;
const PLAIN_PASSWORD: i32 = 46;
const CURVE_SERVER: i32 = 47;
pub(super) const ZAP_DOMAIN: i32 = 55;
const CURVE_PUBLICKEY: i32 = 48;
const CURVE_SECRETKEY: i32 = 49;
const CURVE_SERVERKEY: i32 = 50;
const THREAD_SAFE: i32 = 81;
const RATE: i32 = 8;
const RECOVERY_IVL: i32 = 9;
const MULTICAST_HOPS: i32 = 25;
const MULTICAST_MAXTPDU: i32 = 84;
const USE_FD: i32 = 89;
const LOOPBACK_FASTPATH: i32 = 94;
const MULTICAST_LOOP: i32 = 96;

/// Options that are parts of others, or that mean nothing here.
pub(super) fn set_special(options: &mut Options, number: i32, value: &[u8]) -> Result<(), Error> {
    match number {
        IPV4ONLY => Bool.set("ipv4only", &mut options.ipv6, value).map(|()| options.ipv6 = !options.ipv6),
        // Settings of multicast transports and of an old Windows: accepted and without effect.
        RATE | RECOVERY_IVL | MULTICAST_HOPS | MULTICAST_MAXTPDU | LOOPBACK_FASTPATH | MULTICAST_LOOP => {
            let value = int("multicast", value)?;
            if value < 0 {
                return Err(invalid("multicast", "the value must not be negative"));
            }
            options.idle.insert(number, value);
            Ok(())
        }
        PLAIN_SERVER | PLAIN_USERNAME | PLAIN_PASSWORD => set_plain(options, number, value),
        CURVE_SERVER | CURVE_PUBLICKEY | CURVE_SECRETKEY | CURVE_SERVERKEY => {
            set_curve(options, number, value)
        }
        _ => Err(Error::NotSupported("no such option")),
    }
}

pub(super) fn get_special(options: &Options, number: i32) -> Result<Vec<u8>, Error> {
    let stored = |default| options.idle.get(&number).copied().unwrap_or(default);
    let value = match number {
        IPV4ONLY => i32::from(!options.ipv6),
        MECHANISM => match options.mechanism {
            // Selected by the first of the keys, which may be too few yet.
            Mechanism::Null if options.curve_keys.are_any() => 2,
            Mechanism::Null => 0,
            Mechanism::Plain(_) => 1,
            Mechanism::Curve(_) => 2,
        },
        PLAIN_SERVER => i32::from(matches!(options.mechanism, Mechanism::Plain(PlainOptions::Server { .. }))),
        CURVE_SERVER => i32::from(matches!(options.mechanism, Mechanism::Curve(CurveOptions::Server { .. }))),
        THREAD_SAFE => 1,
        USE_FD => options.use_fd.as_ref().map_or(-1, AsRawFd::as_raw_fd),
        RATE => stored(100),
        RECOVERY_IVL => stored(10_000),
        MULTICAST_HOPS | MULTICAST_LOOP => stored(1),
        MULTICAST_MAXTPDU => stored(1500),
        LOOPBACK_FASTPATH => stored(0),
        PLAIN_USERNAME | PLAIN_PASSWORD | CURVE_PUBLICKEY | CURVE_SECRETKEY | CURVE_SERVERKEY => {
            return Ok(credential(options, number));
        }
        _ => return Err(Error::NotSupported("no such option, or one that cannot be read")),
    };
    Ok(value.to_ne_bytes().to_vec())
}

/// A name, password or key that was set; empty, or a key of zeros, when not.
fn credential(options: &Options, number: i32) -> Vec<u8> {
    match (&options.mechanism, number) {
        (Mechanism::Plain(PlainOptions::Client { username, .. }), PLAIN_USERNAME) => username.clone().into(),
        (Mechanism::Plain(PlainOptions::Client { password, .. }), PLAIN_PASSWORD) => {
            password.as_bytes().to_vec()
        }
        (_, PLAIN_USERNAME | PLAIN_PASSWORD) => Vec::new(),
        (Mechanism::Curve(CurveOptions::Client { server_key, .. }), CURVE_SERVERKEY) => {
            server_key.as_bytes().to_vec()
        }
        (
            Mechanism::Curve(
                CurveOptions::Server { secret_key, .. } | CurveOptions::Client { secret_key, .. },
            ),
            CURVE_PUBLICKEY | CURVE_SECRETKEY,
        ) => match number {
            CURVE_PUBLICKEY => secret_key.public_key().as_bytes().to_vec(),
            _ => secret_key.expose().to_vec(),
        },
        // Of those that do not make a role yet.
        _ => {
            let keys = &options.curve_keys;
            let key = match number {
                CURVE_PUBLICKEY => keys.public.map(|key| key.as_bytes().to_vec()),
                CURVE_SECRETKEY => keys.secret.as_ref().map(|key| key.expose().to_vec()),
                _ => keys.peer.map(|key| key.as_bytes().to_vec()),
            };
            key.unwrap_or_else(|| vec![0; 32])
        }
    }
}

fn set_plain(options: &mut Options, number: i32, value: &[u8]) -> Result<(), Error> {
    if number == PLAIN_SERVER {
        let mut server = false;
        Bool.set("plain_server", &mut server, value)?;
        options.curve_keys = CurveKeys::default();
        options.mechanism = if server {
            Mechanism::Plain(PlainOptions::Server { authenticator: None })
        } else {
            Mechanism::Null
        };
        return Ok(());
    }
    // What it would mean is no security at all, as null does with libzmq.
    if value.is_empty() {
        return Err(invalid(
            "plain_username, plain_password",
            "the text is empty; set plain_server to 0 for none",
        ));
    }
    let mut text = String::new();
    Text { max: 255 }.set("plain_username, plain_password", &mut text, value)?;
    let (mut username, mut password) = match &options.mechanism {
        Mechanism::Plain(PlainOptions::Client { username, password }) => (username.clone(), password.clone()),
        _ => (String::new(), Password::default()),
    };
    if number == PLAIN_USERNAME {
        username = text
    } else {
        password = text.into()
    }
    options.curve_keys = CurveKeys::default();
    options.mechanism = Mechanism::Plain(PlainOptions::Client { username, password });
    Ok(())
}

/// Keys come one by one and in any order; which role they make is known when enough of them are there.
fn set_curve(options: &mut Options, number: i32, value: &[u8]) -> Result<(), Error> {
    let keys = &mut options.curve_keys;
    let key = |problem: KeyError| {
        let _ = problem;
        invalid("curve key", "a key is 32 bytes, or 40 characters of Z85")
    };
    match number {
        CURVE_SERVER => Bool.set("curve_server", &mut keys.server, value)?,
        // It follows from the secret key, and is kept to be checked against that.
        CURVE_PUBLICKEY => keys.public = Some(PublicKey::parse(value).map_err(key)?),
        CURVE_SECRETKEY => keys.secret = Some(SecretKey::parse(value).map_err(key)?),
        _ => keys.peer = Some(PublicKey::parse(value).map_err(key)?),
    }
    options.mechanism = match (keys.server, &keys.secret, keys.peer) {
        (true, Some(secret_key), _) => {
            let policy = CurvePolicy::Zap;
            Mechanism::Curve(CurveOptions::Server { secret_key: secret_key.clone(), policy })
        }
        (false, Some(secret_key), Some(server_key)) => {
            Mechanism::Curve(CurveOptions::Client { server_key, secret_key: secret_key.clone() })
        }
        _ => Mechanism::Null,
    };
    Ok(())
}

/// What was set of CURVE by number so far.
#[derive(Clone, Debug, Default)]
pub(super) struct CurveKeys {
    server: bool,
    public: Option<PublicKey>,
    secret: Option<SecretKey>,
    peer: Option<PublicKey>,
}

impl CurveKeys {
    fn are_any(&self) -> bool {
        self.server || self.public.is_some() || self.secret.is_some() || self.peer.is_some()
    }

    /// Whether something was set, but not enough for either role, or a public key of somebody else.
    pub(super) fn are_incomplete(&self) -> bool {
        let has_role = self.server || self.peer.is_some();
        let fits = |secret: &SecretKey| self.public.is_none_or(|public| public == secret.public_key());
        self.are_any() && !(has_role && self.secret.as_ref().is_some_and(fits))
    }
}
