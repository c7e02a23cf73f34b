//! Logs: text or JSON on standard error, through a bounded queue to a thread of its own.
//!
//! Invariant: logging never waits. When the writer is behind, lines are dropped and counted, and the count is written when it has
//! caught up.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How a process logs; flatten it into a program's flags.
#[derive(Clone, Debug, clap::Args)]
pub struct LogFlags {
    /// What is logged: a level, or `target=level` pairs separated by commas
    #[arg(long = "log", env = "MESH_LOG", default_value = "info", value_name = "FILTER", global = true)]
    pub filter: String,
    /// How a line looks
    #[arg(long = "log-format", env = "MESH_LOG_FORMAT", default_value = "text", value_enum, global = true)]
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `--log` does not parse.
    #[error("log filter {filter:?} is not valid: write a level such as info, or pairs such as mesh_proxy=debug")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The writer's thread did not start.
    #[error("could not start the log writer")]
    Writer(#[source] io::Error),
    /// Something has set up logging before.
    #[error("logging is set up already")]
    Twice,
}

/// Sends this process's events to standard error. The lines dropped so far can be asked of what it returns.
///
/// # Errors
/// When the filter does not parse, or logging is set up already.
pub fn init(flags: &LogFlags) -> Result<Dropped, TelemetryError> {
    let filter =
        EnvFilter::builder().parse(&flags.filter).map_err(|source| TelemetryError::Filter { filter: flags.filter.clone(), source })?;
    let (lines, dropped) = writer(io::stderr()).map_err(TelemetryError::Writer)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines).with_ansi(false);
    let done = match flags.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    done.map_err(|_| TelemetryError::Twice)?;
    Ok(dropped)
}

/// How many lines were dropped because the writer was behind.
#[derive(Clone, Debug, Default)]
pub struct Dropped(Arc<AtomicU64>);

impl Dropped {
    /// The number so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Past this many lines that wait for the writer, further ones are dropped and counted.
const LINES_MAX: usize = 4096;

#[derive(Clone)]
struct Lines {
    queue: SyncSender<Vec<u8>>,
    dropped: Dropped,
}

fn writer(out: impl Write + Send + 'static) -> io::Result<(Lines, Dropped)> {
    let (queue, lines) = sync_channel(LINES_MAX);
    let dropped = Dropped::default();
    let seen = dropped.clone();
    std::thread::Builder::new().name("log".into()).spawn(move || write_all(&lines, &seen, out))?;
    Ok((Lines { queue, dropped: dropped.clone() }, dropped))
}

fn write_all(lines: &Receiver<Vec<u8>>, dropped: &Dropped, mut out: impl Write) {
    let mut told = 0;
    while let Ok(line) = lines.recv() {
        // An output that fails (a closed pipe) must not end the process: its lines are lost, as dropped ones are.
        let _ = out.write_all(&line);
        let now = dropped.count();
        if now != told {
            let _ = writeln!(out, "log lines dropped: {}", now - told);
            told = now;
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { lines: self, bytes: Vec::with_capacity(256) }
    }
}

/// One line on its way to the queue; offered when it is dropped.
struct Line<'a> {
    lines: &'a Lines,
    bytes: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        match self.lines.queue.try_send(std::mem::take(&mut self.bytes)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lines.dropped.0.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().ok();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_queue_drops_lines_and_counts_them_instead_of_waiting() {
        let (release, held) = std::sync::mpsc::channel();
        let (lines, dropped) = writer(Stuck(held)).unwrap();
        for _ in 0..LINES_MAX + 10 {
            lines.make_writer().write_all(b"line\n").unwrap();
        }
        assert!(dropped.count() >= 9, "{}", dropped.count());
        drop(release);
    }
}
