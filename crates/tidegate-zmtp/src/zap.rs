//! ZAP: authentication requests to a handler socket, and its replies (§4.7).
//!
//! ```text
//! request: ""  "1.0"  id  domain  address  identity  mechanism  credential*
//! reply:   ""  "1.0"  id  status  text     user id   metadata
//! ```

use tidegate_io::message::Message;

use crate::{
    auth::{AuthCode, AuthRequest, Credentials, Verdict, ZapError},
    metadata::Metadata,
};

/// Where the handler of a context is bound.
pub const ENDPOINT: &str = "inproc://zeromq.zap.01";

const VERSION: &[u8] = b"1.0";

/// The message that puts `request` to a handler.
///
/// `id` comes back in the reply. `address` is the numeric address of the client without a port, or what stands for it.
pub fn request(id: &[u8], domain: &[u8], address: &[u8], request: &AuthRequest) -> Message {
    let mechanism: &[u8] = match &request.credentials {
        Credentials::None => b"NULL",
        Credentials::Plain(_) => b"PLAIN",
        Credentials::Curve(_) => b"CURVE",
    };
    let mut message: Message =
        [b"".as_slice(), VERSION, id, domain, address, &request.identity, mechanism].into_iter().collect();
    match &request.credentials {
        Credentials::None => {}
        Credentials::Plain(plain) => message.extend([plain.username.as_bytes(), plain.password.as_bytes()]),
        Credentials::Curve(key) => message.push(key),
    }
    message
}

/// What the handler decided on the request with this `id`. A reply that breaks a rule is [`Verdict::Invalid`], also when
/// it refuses (MQ-159).
pub fn verdict(id: &[u8], reply: &Message) -> Verdict {
    parse(id, reply).unwrap_or_else(Verdict::Invalid)
}

fn parse(id: &[u8], reply: &Message) -> Result<Verdict, ZapError> {
    let [delimiter, version, echoed, status, _text, user_id, metadata] = reply.parts() else {
        return Err(ZapError::MalformedReply);
    };
    if !delimiter.is_empty() {
        return Err(ZapError::MalformedReply);
    }
    if version != VERSION {
        return Err(ZapError::BadVersion);
    }
    if echoed != id {
        return Err(ZapError::BadRequestId);
    }
    let refusal = match status.as_slice() {
        b"200" => None,
        code => Some(AuthCode::from_reason(code).ok_or(ZapError::InvalidStatusCode)?),
    };
    let metadata = Metadata::parse(metadata).map_err(|_| ZapError::InvalidMetadata)?;
    Ok(match refusal {
        Some(code) => Verdict::Refuse(code),
        None => Verdict::Accept { user_id: user_id.clone().into_bytes(), metadata },
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::auth::PlainCredentials;

    fn asked(credentials: Credentials) -> Message {
        let question = AuthRequest { identity: Bytes::from_static(b"me"), credentials };
        request(b"7", b"global", b"127.0.0.1", &question)
    }

    fn reply(changes: &[(usize, &'static [u8])]) -> Message {
        let mut parts: [&[u8]; 7] =
            [b"", b"1.0", b"7", b"200", b"OK", b"alice", b"\x05X-job\x00\x00\x00\x03ant"];
        for &(index, part) in changes {
            parts[index] = part;
        }
        parts.into_iter().collect()
    }

    /// The example of every mechanism, part by part.
    #[test]
    fn requests_have_the_parts_of_their_mechanism() {
        let parts = |mechanism: &'static [u8], credentials: &[&[u8]]| -> Message {
            let head: [&[u8]; 7] = [b"", b"1.0", b"7", b"global", b"127.0.0.1", b"me", mechanism];
            head.iter().chain(credentials).copied().collect()
        };
        assert_eq!(asked(Credentials::None), parts(b"NULL", &[]));
        let plain = PlainCredentials::new(b"alice", b"").unwrap();
        assert_eq!(asked(Credentials::Plain(plain)), parts(b"PLAIN", &[b"alice", b""]));
        assert_eq!(asked(Credentials::Curve([9; 32])), parts(b"CURVE", &[&[9; 32]]));
    }

    /// Rules: MQ-159, MQ-160.
    #[test]
    fn valid_replies_are_verdicts() {
        let metadata = Metadata::parse(b"\x05X-job\x00\x00\x00\x03ant").unwrap();
        let accepted = Verdict::Accept { user_id: Bytes::from_static(b"alice"), metadata };
        assert_eq!(verdict(b"7", &reply(&[])), accepted);
        let plain = Verdict::Accept { user_id: Bytes::new(), metadata: Metadata::default() };
        assert_eq!(verdict(b"7", &reply(&[(4, b""), (5, b""), (6, b"")])), plain);
        for (status, code) in
            [(b"300", AuthCode::Temporary), (b"400", AuthCode::Denied), (b"500", AuthCode::Internal)]
        {
            assert_eq!(verdict(b"7", &reply(&[(3, status)])), Verdict::Refuse(code));
        }
    }

    /// libzmq: test_security_zap/wrong_version, wrong_request_id, wrong_status_invalid, too_many_parts.
    ///
    /// Rules: MQ-159, MQ-459.
    #[test]
    fn each_fault_of_a_reply_has_its_code() {
        let faults: [(usize, &'static [u8], ZapError); 14] = [
            (0, b"x", ZapError::MalformedReply),
            (1, b"", ZapError::BadVersion),
            (1, b"1.1", ZapError::BadVersion),
            (1, b"1.0\0", ZapError::BadVersion),
            (2, b"", ZapError::BadRequestId),
            (2, b"8", ZapError::BadRequestId),
            (2, b"77", ZapError::BadRequestId),
            (3, b"", ZapError::InvalidStatusCode),
            (3, b"100", ZapError::InvalidStatusCode),
            (3, b"2000", ZapError::InvalidStatusCode),
            (3, b"20", ZapError::InvalidStatusCode),
            (6, b"\x05X-job\x00\x00\x00\x03an", ZapError::InvalidMetadata),
            (6, b"\x00\x00\x00\x00\x00", ZapError::InvalidMetadata),
            (6, b"\x01", ZapError::InvalidMetadata),
        ];
        for (index, part, fault) in faults {
            assert_eq!(
                verdict(b"7", &reply(&[(index, part)])),
                Verdict::Invalid(fault),
                "part {index}: {part:?}"
            );
        }
        let refused = reply(&[(3, b"400"), (6, b"\x01")]);
        assert_eq!(verdict(b"7", &refused), Verdict::Invalid(ZapError::InvalidMetadata));
        let whole = reply(&[]);
        for count in 0..7 {
            let short: Message = whole.parts()[..count].iter().cloned().collect();
            assert_eq!(verdict(b"7", &short), Verdict::Invalid(ZapError::MalformedReply));
        }
        let mut long = whole;
        long.push(b"");
        assert_eq!(verdict(b"7", &long), Verdict::Invalid(ZapError::MalformedReply));
    }

    proptest! {
        /// Whatever a handler replies, only the request that was asked is answered.
        ///
        /// Rules: MQ-159.
        #[test]
        fn any_reply_is_judged(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..8), 0..9)) {
            let accepted = matches!(verdict(b"7", &parts.iter().cloned().collect()), Verdict::Accept { .. });
            prop_assert!(!accepted || (parts.len() == 7 && parts[2] == b"7" && parts[3] == b"200"));
        }
    }
}
