//! Logs of all parts, to standard error (TP-467).

use std::fmt;
use std::io;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tidegate::shm::sync::{AtomicBool, Ordering};
use tidegate::tensor::config::{ConfigError, LogLevel, log_level};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::fmt::format::{Format, FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, layer};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::output::{Exit, Report};

/// Starts logging at the level of `TP_LOG_LEVEL`, `verbose` steps up, or at errors only when `quiet`.
///
/// # Errors
/// `TP_LOG_LEVEL` is not a number from 0 to 4.
pub(crate) fn start(verbose: u8, quiet: bool) -> Result<(), LogLevelError> {
    let configured =
        log_level(&|name| std::env::var_os(name).map(|text| text.to_string_lossy().into_owned()))
            .map_err(LogLevelError)?;
    let level = if quiet { LevelFilter::ERROR } else { raised(configured, verbose) };
    let (level, handle) = reload::Layer::new(level);
    let lines =
        layer().event_format(Lines(Format::default())).with_writer(io::stderr).log_internal_errors(false);
    tracing_subscriber::registry().with(level).with(lines).init();
    // The command line is executed once.
    let _ = LEVEL.set(handle);
    Ok(())
}

/// Changes the level while the program runs; says which there are when there is none of this name.
#[cfg(feature = "vertex")]
pub(crate) fn set_level(name: &str) -> Result<(), String> {
    let known = ["error", "warn", "info", "debug", "trace"];
    let level = name.parse::<LevelFilter>().ok().filter(|_| known.contains(&name));
    let level = level.ok_or_else(|| format!("{name:?} is no level; there are {}", known.join(", ")))?;
    let handle = LEVEL.get().ok_or_else(|| "nothing is logged".to_owned())?;
    handle.reload(level).map_err(|error| error.to_string())
}

/// From now on each line of the log is an object of JSON.
#[cfg(feature = "vertex")]
pub(crate) fn set_json() {
    // Relaxed: nothing is published with it.
    JSON.store(true, Ordering::Relaxed);
}

/// From now on each line of the log names the pipeline that the process runs (VX-863).
#[cfg(feature = "vertex")]
pub(crate) fn set_pipeline(name: &str) {
    // A process runs one.
    let _ = PIPELINE.set(name.to_owned());
}

static PIPELINE: OnceLock<String> = OnceLock::new();
static LEVEL: OnceLock<Handle<LevelFilter, Registry>> = OnceLock::new();
static JSON: AtomicBool = AtomicBool::new(false);

/// Lines as people read them, or as programs do.
struct Lines(Format);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if !JSON.load(Ordering::Relaxed) {
            if let Some(pipeline) = PIPELINE.get() {
                write!(to, "[{pipeline}] ")?;
            }
            return self.0.format_event(context, to, event);
        }
        let mut fields = Fields(Map::new());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        fields.0.insert("time_ms".into(), u64::try_from(now.as_millis()).unwrap_or(u64::MAX).into());
        fields.0.insert("level".into(), event.metadata().level().as_str().to_lowercase().into());
        fields.0.insert("target".into(), event.metadata().target().into());
        if let Some(pipeline) = PIPELINE.get() {
            fields.0.insert("pipeline".into(), pipeline.as_str().into());
        }
        event.record(&mut fields);
        writeln!(to, "{}", Value::Object(fields.0))
    }
}

/// The fields of a line.
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

/// A bad `TP_LOG_LEVEL`.
#[derive(Debug, thiserror::Error)]
#[error("{0}; correct or unset it")]
pub(crate) struct LogLevelError(ConfigError);

impl Report for LogLevelError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn code(&self) -> &'static str {
        "usage"
    }
}

fn raised(level: LogLevel, steps: u8) -> LevelFilter {
    const LEVELS: [LevelFilter; 5] =
        [LevelFilter::ERROR, LevelFilter::WARN, LevelFilter::INFO, LevelFilter::DEBUG, LevelFilter::TRACE];
    LEVELS.get(level as usize + usize::from(steps)).copied().unwrap_or(LevelFilter::TRACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: TP-467.
    #[test]
    fn levels_count_from_errors_to_trace() {
        let levels = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
        let filters = [
            LevelFilter::ERROR,
            LevelFilter::WARN,
            LevelFilter::INFO,
            LevelFilter::DEBUG,
            LevelFilter::TRACE,
        ];
        for (start, level) in levels.into_iter().enumerate() {
            for steps in 0..=255 {
                assert_eq!(raised(level, steps), filters[(start + usize::from(steps)).min(4)]);
            }
        }
    }
}
