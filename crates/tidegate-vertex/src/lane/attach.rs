//! Starting a worker process, and agreeing with one (7.1).
//!
//! A worker that the runtime starts gets one end of a socket as its standard input, which is the one way to pass a descriptor that
//! no other process started at the same moment inherits; the SDK moves it away before user code runs. What it prints goes through
//! a pipe to the runtime's standard error. One that came by itself has said `hello` at the door already.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::rand::{GetRandomFlags, getrandom};
use thiserror::Error;
use tidegate_shm::{
    clock::{Nanos, boottime_now, monotonic_now},
    process::{ProcessError, ProcessHandle, ProcessId},
    region::SealedMemory,
    sync::Arc,
};
use tidegate_udf::{
    control::{Control, Incoming as Arrived},
    wire::{
        function::FunctionKind,
        ids::{SchemaId, SessionId},
        message::{FromRuntime, FromWorker, Hello, MessageFault, Reject, VERSIONS, Welcome, common_version},
    },
};

use super::{
    door::{Hall, Newcomer},
    says::{Says, Tail},
    session::{Hold, Incoming, Segments, Session, SessionError, Transport, Typing},
};

/// Where workers come from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// The runtime starts them, supervises them and ends them.
    Command {
        /// Program and arguments.
        command: Vec<String>,
        /// Environment besides that of the runtime.
        env: Vec<(String, String)>,
    },
    /// Somebody else starts them, and they come in by a door.
    Outside(Hall),
}

/// The workers of a vertex.
#[derive(Debug, Clone)]
pub struct WorkerSpec {
    /// Where they come from.
    pub origin: Origin,
    /// What the runtime tells the worker.
    pub welcome: Welcome,
    /// Sizes of the session.
    pub transport: Transport,
    /// What its records are.
    pub typing: Typing,
    /// Random number of the runtime process.
    pub instance: u64,
    /// Number of the pipeline.
    pub pipeline: u64,
    /// How long attaching may take.
    pub attach_timeout: Nanos,
    /// How long a batch may be the oldest.
    pub batch_timeout: Nanos,
}

/// Why there is no session with a worker.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The program could not be started.
    #[error("cannot start the worker {command:?}: {source}; check udf.command, or --udf of udf-test")]
    Spawn {
        /// The program.
        command: String,
        /// What the system said.
        source: io::Error,
    },
    /// The socket or random numbers failed.
    #[error("cannot {step}")]
    Io {
        /// What was attempted.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The worker ended or closed its socket before it was attached.
    #[error("the worker {worker} ended before it attached ({status}); what it printed says why")]
    Ended {
        /// The program, or who it was.
        worker: String,
        /// How it ended.
        status: String,
    },
    /// The worker did not say anything in time.
    #[error("the worker {worker} did not attach in time; it has to call `run` of its SDK at its start")]
    Silent {
        /// The program, or who it was.
        worker: String,
    },
    /// The worker said something that is none of the protocol.
    #[error(transparent)]
    Message(#[from] MessageFault),
    /// The two do not fit.
    #[error("the worker was refused ({code}): {message}")]
    Refused {
        /// One stable word.
        code: &'static str,
        /// Names what both sides have.
        message: String,
    },
    /// The segments could not be made.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The process could not be held.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// A worker that is attached.
pub(super) struct Attached {
    /// The process, if the runtime has started it.
    pub(super) worker: Option<Worker>,
    pub(super) control: Arc<Control>,
    pub(super) session: Session,
    pub(super) incoming: Incoming,
}

/// A worker process that the runtime has started; ended when dropped.
pub(super) struct Worker {
    child: Child,
    says: Says,
    /// CLOCK_BOOTTIME before it was started.
    started: Nanos,
}

impl Worker {
    /// Ends the process and collects it.
    pub(super) fn end(&mut self) -> io::Result<ExitStatus> {
        // The child was not collected yet, so its number is its own. That it ended already is no error.
        let _ = self.child.kill();
        let status = self.child.wait();
        self.says.finish();
        status
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// What both sides agree on before there is a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Agreed {
    proto: u32,
    kind: FunctionKind,
}

/// Starts worker `number` with this command and attaches it.
pub(super) fn start(
    spec: &WorkerSpec,
    (command, env): (&[String], &[(String, String)]),
    number: u32,
    fence: &Arc<SealedMemory>,
    tail: &Arc<Tail>,
) -> Result<Attached, AttachError> {
    let (control, theirs) = Control::pair().map_err(io_error("make a control socket"))?;
    let mut worker = spawn(command, env, number, theirs, tail)?;
    let attaching = Attaching::new(spec, number, Arc::new(control), format!("{:?}", command.join(" ")));
    match attach(&attaching, fence, &worker) {
        Ok((session, incoming)) => {
            Ok(Attached { worker: Some(worker), control: attaching.control, session, incoming })
        }
        Err(AttachError::Ended { worker: name, .. }) => {
            let status = worker.end().map_or_else(|error| error.to_string(), |status| status.to_string());
            Err(AttachError::Ended { worker: name, status })
        }
        Err(error) => Err(error),
    }
}

/// Attaches a worker that came by itself as worker `number`.
pub(super) fn welcome(
    spec: &WorkerSpec,
    newcomer: Newcomer,
    number: u32,
    fence: &Arc<SealedMemory>,
) -> Result<Attached, AttachError> {
    // The place goes when it is attached, or not.
    let Newcomer { control, stranger, agreed, place: _place } = newcomer;
    let attaching = Attaching::new(spec, number, control, stranger.to_string());
    let hold = |control: &Arc<Control>| Hold::Stranger(stranger, control.clone());
    let (session, incoming) = attaching.complete(fence, agreed, hold)?;
    Ok(Attached { worker: None, control: attaching.control, session, incoming })
}

fn spawn(
    command: &[String],
    env: &[(String, String)],
    number: u32,
    theirs: Control,
    tail: &Arc<Tail>,
) -> Result<Worker, AttachError> {
    let (program, arguments) = command
        .split_first()
        .ok_or(AttachError::Spawn { command: String::new(), source: io::ErrorKind::InvalidInput.into() })?;
    let (pipe, output) = io::pipe().map_err(io_error("make a pipe"))?;
    let errors = output.try_clone().map_err(io_error("copy a pipe"))?;
    let says = Says::listen(number, pipe, tail.clone()).map_err(io_error("listen to a worker"))?;
    let started = boottime_now();
    let child = Command::new(program)
        .args(arguments)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .env("TIDEGATE_VX_FD", "0")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::from(output))
        .stderr(Stdio::from(errors))
        .spawn()
        .map_err(|source| AttachError::Spawn { command: program.clone(), source })?;
    Ok(Worker { child, says, started })
}

/// A worker that is being attached.
struct Attaching<'s> {
    spec: &'s WorkerSpec,
    number: u32,
    control: Arc<Control>,
    /// For people.
    worker: String,
    deadline: Nanos,
}

/// Hears who a worker is that the runtime has started, and attaches it.
fn attach(
    attaching: &Attaching<'_>,
    fence: &Arc<SealedMemory>,
    worker: &Worker,
) -> Result<(Session, Incoming), AttachError> {
    // Ours until it is collected, so its number names it.
    let process = ProcessHandle::open(ProcessId::of(worker.child.id())?);
    let process = process.map_err(|error| match error {
        ProcessError::Gone { .. } => attaching.ended(),
        other => other.into(),
    })?;
    let FromWorker::Hello(hello) = attaching.hear()? else {
        return Err(refused("MESSAGE", "the first message was not hello".to_owned()));
    };
    let agreed = match judge(&hello, worker.started, attaching.spec.typing) {
        Ok(agreed) => agreed,
        Err((code, message)) => {
            let reject = FromRuntime::Reject(Reject { code: code.to_owned(), message: message.clone() });
            // The worker learns it from its end otherwise.
            let _ = attaching.control.send(&reject.encode(), &[]);
            // Lets it print what it was told.
            process.wait_exit(attaching.deadline);
            return Err(refused(code, message));
        }
    };
    attaching.complete(fence, agreed, |_| Hold::Child(process))
}

impl<'s> Attaching<'s> {
    fn new(spec: &'s WorkerSpec, number: u32, control: Arc<Control>, worker: String) -> Self {
        let deadline = monotonic_now().saturating_add(spec.attach_timeout);
        Self { spec, number, control, worker, deadline }
    }

    /// Gives the worker the memory of a new session, and waits until it is ready.
    fn complete(
        &self,
        fence: &Arc<SealedMemory>,
        Agreed { proto, kind }: Agreed,
        hold: impl FnOnce(&Arc<Control>) -> Hold,
    ) -> Result<(Session, Incoming), AttachError> {
        let Self { spec, number, control, .. } = self;
        let session = SessionId(random()?.max(1));
        let segments = Segments::create(
            &spec.transport,
            session,
            spec.instance,
            spec.pipeline,
            *number,
            kind,
            spec.typing,
        )?;
        let welcome = FromRuntime::Welcome(Welcome { proto, ..spec.welcome.clone() });
        let descriptors = [segments.down.as_fd(), segments.up.as_fd(), fence.as_fd()];
        match control.send(&welcome.encode(), &descriptors) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(self.ended()),
            sent => sent.map_err(io_error("welcome the worker"))?,
        }
        let FromWorker::Ready(ready) = self.hear()? else {
            return Err(refused("MESSAGE", "the second message was not ready".to_owned()));
        };
        if !segments.is_ready() {
            return Err(refused("MESSAGE", "the worker said ready and its segment does not".to_owned()));
        }
        if !ready.sealed {
            tracing::warn!("this platform does not keep workers from writing the runtime's segments");
        }
        let beat = Nanos::from_millis(spec.welcome.heartbeat_ms);
        Ok(segments.start(hold(control), spec.welcome.routes.len(), beat))
    }

    /// Waits for the next message.
    fn hear(&self) -> Result<FromWorker, AttachError> {
        let arrived = self.control.receive_until(self.deadline, false);
        match arrived.map_err(io_error("hear from the worker"))? {
            Some(Arrived::Message(datagram, _)) => Ok(FromWorker::decode(&datagram)?),
            Some(Arrived::HangUp) => Err(self.ended()),
            None => Err(AttachError::Silent { worker: self.worker.clone() }),
        }
    }

    fn ended(&self) -> AttachError {
        AttachError::Ended { worker: self.worker.clone(), status: "it hung up".to_owned() }
    }
}

/// What both sides agree on, or why the worker is not taken. It wrote the message between `started` and now, however long that
/// took.
pub(super) fn judge(hello: &Hello, started: Nanos, typing: Typing) -> Result<Agreed, (&'static str, String)> {
    let Some(proto) = common_version(VERSIONS, hello.proto) else {
        let message = format!("the runtime speaks {VERSIONS:?}, the worker {:?}", hello.proto);
        return Err(("VERSION", message));
    };
    let Some(kind) = FunctionKind::from_name(&hello.kind) else {
        let message = format!(
            "the runtime runs functions of kind map, batch_map and batch_table, not {:?}",
            hello.kind
        );
        return Err(("KIND", message));
    };
    if !typing.fits(&hello.schema_in, hello.schema_out) {
        let takes: Vec<String> = hello.schema_in.iter().take(MOST_NAMED).map(schema).collect();
        let loose = Typing { strict: false, ..typing }.fits(&hello.schema_in, hello.schema_out);
        let message = format!(
            "the pipeline has inputs of schema {} and outputs of {}; the worker takes {} and makes {}; name the same in [schema] of \
             the pipeline file and as schema_in and schema_out of the function{}",
            schema(&typing.input),
            schema(&typing.output),
            if takes.is_empty() { "none".to_owned() } else { takes.join(", ") },
            schema(&hello.schema_out),
            if loose { ", or set schema.strict = false" } else { "" },
        );
        return Err(("SCHEMA", message));
    }
    if let Some(feature) = hello.features.first() {
        return Err(("FEATURE", format!("the worker requires {feature:?}, which the runtime does not have")));
    }
    let written = Nanos(hello.boottime);
    let apart = written.saturating_sub(boottime_now()).max(started.saturating_sub(written)).0;
    if apart > MAX_APART.0 {
        let message =
            format!("CLOCK_BOOTTIME differs by {apart} ns: the two are in different time namespaces");
        return Err(("CLOCK", message));
    }
    Ok(Agreed { proto, kind })
}

/// A schema, for people.
fn schema(id: &SchemaId) -> String {
    if *id == SchemaId::NONE { "0 (untyped bytes)".to_owned() } else { format!("{:016x}", id.0) }
}

/// A random number.
pub(crate) fn random() -> Result<u64, AttachError> {
    let mut bytes = [0; 8];
    getrandom(&mut bytes[..], GetRandomFlags::empty())
        .map_err(|errno| AttachError::Io { step: "get random numbers", source: errno.into() })?;
    Ok(u64::from_ne_bytes(bytes))
}

fn refused(code: &'static str, message: String) -> AttachError {
    AttachError::Refused { code, message }
}

fn io_error(step: &'static str) -> impl FnOnce(io::Error) -> AttachError {
    move |source| AttachError::Io { step, source }
}

/// Schemas of a worker that are named when none of them fits.
const MOST_NAMED: usize = 8;
/// A reading of the same clock is not further than this from the time in which it was taken.
const MAX_APART: Nanos = Nanos::from_secs(1);
