//! DISC_REQ: where a channel is, or why that cannot be said (13.3, DH-193).

use super::{Answer, Asked, Machine, Output, Refused, registry::Entry};
use crate::broker::{
    host::Inspection,
    wire::{
        ChannelName, Code, Discover, Discovered, HandoverPhase, Register, ReplyBody, SchemaMode,
        SealedSecret, Z85Key,
    },
};

impl Machine {
    pub(super) fn discover(
        &mut self,
        body: &Discover,
        asked: &Asked<'_>,
        outputs: &mut Vec<Output>,
    ) -> Answer {
        let name = &body.channel_name;
        let Some(entry) = self.registry.find(name) else {
            return Err(self.unknown(name));
        };
        if entry.verifier().is_some() {
            self.check_owner(entry, asked)?;
        }
        self.look_at_block(name, entry.is_owner_dead(asked.host), asked, outputs)?;
        let Some(entry) = self.registry.find(name) else {
            return Err(self.unknown(name));
        };
        check_state(entry)?;
        check_schema(&entry.register, body)?;
        Ok(ReplyBody::Discovered(Box::new(Discovered {
            channel: entry.facts(!entry.is_owner_dead(asked.host)),
            events_endpoint: self.settings.events_endpoint.clone(),
            handover: entry.handover_state(),
            sealed_secret: sealed_secret(&entry.register, body, asked),
        })))
    }

    /// Opens the block where there is reason to doubt it: its owner is dead, it was restored, or was being built. What is
    /// gone for certain is removed.
    fn look_at_block(
        &mut self,
        name: &ChannelName,
        is_owner_dead: bool,
        asked: &Asked<'_>,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Refused> {
        let Some(entry) = self.registry.find_mut(name) else { return Ok(()) };
        let is_settled = entry.is_verified && !entry.is_building && !is_owner_dead;
        if is_settled || !entry.is_local(asked.host) {
            return Ok(());
        }
        match asked.host.inspect(&entry.register.shm_name) {
            Inspection::Found(facts) if facts.block_uuid == entry.register.block_uuid => {
                entry.is_verified = true;
                entry.is_building = !facts.is_ready;
                Ok(())
            }
            Inspection::Unreadable => Ok(()),
            // Whoever cut over died before it said so: the block before goes only when nobody needs it any more.
            Inspection::Missing | Inspection::Found(_) if entry.has_successor() => {
                self.registry.promote(name, asked.now.monotonic);
                Ok(())
            }
            Inspection::Missing | Inspection::Found(_) => {
                let message = format!("the block of channel {name} is gone; its producer has to start again");
                self.close(name, "BLOCK_GONE", asked.now, outputs);
                Err(Refused::new(Code::StaleOwner, message))
            }
        }
    }
}

fn check_state(entry: &Entry) -> Result<(), Refused> {
    let name = &entry.register.channel_name;
    if !entry.is_verified {
        let message =
            format!("channel {name} was restored and its block could not be checked yet; try again");
        return Err(Refused::new(Code::RestoredUnverified, message));
    }
    if entry.is_building {
        return Err(Refused::new(
            Code::Building,
            format!("the block of channel {name} is being built; try again"),
        ));
    }
    let is_between = entry.handover.as_ref().is_some_and(|handover| {
        handover.notify.phase == HandoverPhase::Cutover && handover.notify.new_channel == *name
    });
    if is_between {
        return Err(Refused::new(Code::Handover, format!("channel {name} moves to a new block; try again")));
    }
    Ok(())
}

/// What can be said about schemas without their texts; the block has the last word (DH-177, DH-179).
fn check_schema(register: &Register, body: &Discover) -> Result<(), Refused> {
    if body.schema_mode == SchemaMode::Ignore {
        return Ok(());
    }
    let name = &register.channel_name;
    let found = register.schema();
    if let Some(expected) = body.schema_version
        && expected.major != found.version.major
    {
        let message = format!(
            "channel {name} has schema version {}, expected {expected}: the major versions differ",
            found.version
        );
        return Err(Refused::new(Code::Version, message));
    }
    let Some(expected) = body.schema_hash else { return Ok(()) };
    if expected == found.hash {
        return Ok(());
    }
    match body.schema_mode {
        SchemaMode::Strict => Err(Refused::new(
            Code::Hash,
            format!(
                "channel {name} has schema {found}, expected hash {expected}; update one side or allow appended fields"
            ),
        )),
        SchemaMode::AllowAppended if found.hash.is_untyped() => Err(Refused::new(
            Code::Incompatible,
            format!("channel {name} has untyped bytes, expected schema {expected}; read it untyped"),
        )),
        SchemaMode::AllowAppended | SchemaMode::Ignore => Ok(()),
    }
}

/// The secret sealed for the key of the connection, if the producer allows that (DH-208).
fn sealed_secret(register: &Register, body: &Discover, asked: &Asked<'_>) -> Option<SealedSecret> {
    if !body.want_sealed_secret || !register.allow_sealed {
        return None;
    }
    register.sealed_secrets.get(&Z85Key(asked.origin.key?)).cloned()
}
