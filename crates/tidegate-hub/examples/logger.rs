//! A log without gaps: the consumer that writes it is killed, and the next one goes on where it stopped.
//!
//! `cargo run -p tidegate-hub --example logger`

use std::{
    env,
    error::Error,
    fs::{self, OpenOptions},
    io::{self, Write},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tidegate_hub::{
    config::{BufferPolicy, ConsumerConfig, HubConfig, Timeout},
    consumer::Consumer,
    error::{AcquireError, TxError},
    layout::ChannelName,
    producer::Producer,
    schema::{Char8, HubSchema},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const LONG: Timeout = Timeout::After(Duration::from_secs(30));
const RING: u32 = 64;
/// What is sent to each of the two consumers, besides what nobody reads at once.
const ENTRIES: u64 = 1_000;

#[derive(HubSchema, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Entry {
    number: u64,
    text: [Char8; 24],
}

impl Entry {
    const SIZE: u64 = size_of::<Self>() as u64;

    fn new(number: u64) -> Result<Self> {
        let text = Char8::array(&format!("entry {number}")).ok_or("the text is too long")?;
        Ok(Self { number, text })
    }
}

pub(crate) fn main() -> Result<()> {
    run(&[])
}

/// Consumers are this program again, with `arguments` before their own.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let own: Vec<String> = env::args().collect();
    if let [.., role, log, block] = &own[..]
        && role == "consume"
    {
        return consume(Path::new(log), block);
    }
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    let config = HubConfig::typed::<Entry>(ChannelName::new("logger")?, BufferPolicy::ring(RING)).reliable();
    let producer = Producer::create(&config)?;
    let start = || -> Result<Child> {
        let mut command = Command::new(env::current_exe()?);
        command.args(arguments).arg("consume").arg(&log).arg(producer.name());
        Ok(command.stdout(Stdio::null()).spawn()?)
    };

    let mut consumer = start()?;
    for _ in 0..ENTRIES {
        send(&producer, LONG)?;
    }
    // SIGKILL, in the middle of its work.
    consumer.kill()?;
    consumer.wait()?;
    let written = fs::metadata(&log)?.len() / Entry::SIZE;
    // Nobody reads. What is sent is kept until there is no room for more.
    while send(&producer, Timeout::Immediate)? {}
    let kept = producer.next_id().0 - written;

    let mut consumer = start()?;
    for _ in 0..ENTRIES {
        send(&producer, LONG)?;
    }
    let sent = producer.next_id().0;
    producer.close()?;
    assert!(consumer.wait()?.success(), "it ends when all is read");

    let expected: Result<Vec<Entry>> = (0..sent).map(Entry::new).collect();
    assert!(fs::read(&log)? == expected?.as_bytes(), "each once, in their order");
    println!("killed after {written} of {sent} entries; {kept} were kept for the next consumer");
    Ok(())
}

/// Sends the next entry; false if there is no room.
fn send(producer: &Producer, timeout: Timeout) -> Result<bool> {
    match producer.send_record(&Entry::new(producer.next_id().0)?, timeout) {
        Ok(_) => Ok(true),
        Err(TxError::Acquire(AcquireError::QueueFull)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Writes all entries of a channel to a file, until it is closed.
fn consume(log: &Path, block: &str) -> Result<()> {
    let mut log = OpenOptions::new().append(true).create(true).open(log)?;
    let mut next = log.metadata()?.len() / Entry::SIZE;
    // Who wrote before may have been killed in the middle of an entry.
    log.set_len(next * Entry::SIZE)?;
    let mut consumer = Consumer::attach(block, &ConsumerConfig::default())?;
    loop {
        // Read means written: an entry comes again if its consumer was killed in between, so the file says what is new.
        let logged = consumer.with_typed_next(LONG, |entry: &Entry| {
            if entry.number >= next {
                log.write_all(entry.as_bytes())?;
                next += 1;
            }
            io::Result::Ok(())
        });
        match logged {
            Ok(()) => {}
            Err(TxError::Acquire(AcquireError::Closed { .. })) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
