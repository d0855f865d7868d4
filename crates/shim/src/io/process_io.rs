//! All standard I/O of one process, from the request that names it to the last byte delivered.
//!
//! Order of calls: `open` (Create or Exec: attaching works from here on) → `streams` → the process is made → `connect` →
//! the process ends → `settle`. A process that never comes to be is given up with `settle` too.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use berth_proto::attach::Options;
use berth_runtime::Stdio;
use berth_shim_client::IoUris;
use berth_types::{Classify, ErrorClass};
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use rustix::pipe::PipeFlags;
use rustix::termios::Winsize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::client::{self, InputSide};
use super::detach_keys::DetachKeys;
use super::hub::Hub;
use super::json_file::JsonFile;
use super::log_binary::{LogBinary, Program};
use super::outlet::{self, Manner, OpenOutlets, Outlet};
use super::stdin::Stdin;
use super::uri::{Input, IoRequest, Output, Owner};
use super::{Stream, copier, set_nonblocking, watch as register};
use crate::log;

/// Between two looks for a reader of an input FIFO, which is there at the first or comes soon.
const READER_INTERVAL: Duration = Duration::from_millis(5);
/// How long output may go on after the process ended, when children of it still hold the streams (an exec's).
const OUTPUT_AFTER_EXIT: Duration = Duration::from_secs(2);
/// How long a process's end is kept from clients whose FIFOs still hold output: while they take nothing, and in all.
const READER_STALLS: Duration = Duration::from_secs(5);
const READER_IS_LATE: Duration = Duration::from_secs(10);
/// After so long without a byte taken it is worth looking whether there is a reader at all; after twice as long again, and so on.
const READER_MISSED: Duration = Duration::from_millis(30);
/// Between two looks at what such a FIFO holds: a pipe does not tell when it is empty.
const DRAIN_INTERVAL: Duration = Duration::from_millis(1);

#[derive(Debug, thiserror::Error)]
pub(crate) enum IoError {
    #[error("cannot open {what} {}", .path.display())]
    Open { what: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot set up {what}")]
    Setup { what: &'static str, source: io::Error },
    #[error("the process has no terminal")]
    NoTerminal,
    #[error("the process reads no standard input")]
    NoInput,
    #[error("cannot take the client's stream")]
    Client { source: io::Error },
}

impl Classify for IoError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Open { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorClass::NotFound,
            Self::NoTerminal | Self::NoInput => ErrorClass::FailedPrecondition,
            Self::Client { .. } => ErrorClass::InvalidArgument,
            Self::Open { .. } | Self::Setup { .. } => ErrorClass::Internal,
        }
    }
}

/// Our ends of a process's streams while the process is being made.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

/// FIFOs for a process that another shim makes.
#[derive(Debug)]
pub(crate) struct Fifos {
    pub(crate) addresses: IoUris,
    pub(crate) ours: Streams,
    /// Our end of the input, for [`ProcessIo::connect_when_read`].
    pub(crate) input: Option<OwnedFd>,
    /// The other ends, to be held until the other shim has its own: a FIFO nobody writes to is at its end.
    pub(crate) keepers: Vec<OwnedFd>,
}

#[derive(Debug)]
pub(crate) struct ProcessIo {
    request: IoRequest,
    hub: Arc<Hub>,
    stdin: Arc<Stdin>,
    state: Mutex<State>,
    /// Turns true when the process has ended.
    ended: watch::Sender<bool>,
    /// Turns true when the copiers shall read what is there and end.
    stop: watch::Sender<bool>,
    open: Arc<OpenOutlets>,
}

#[derive(Debug, Default)]
struct State {
    terminal: Option<Arc<AsyncFd<OwnedFd>>>,
    /// Asked for before there was a terminal.
    size: Option<(u16, u16)>,
    copiers: Vec<JoinHandle<()>>,
    /// What the copiers read from, until they have reached its end.
    sources: Vec<Weak<AsyncFd<OwnedFd>>>,
    /// Writing end of a FIFO we read from: as long as we hold it, the FIFO has no end. CloseIO drops it.
    input_keeper: Option<OwnedFd>,
    /// Started, and not yet ready.
    logger: Option<LogBinary>,
    /// CloseIO came, perhaps before there was a keeper.
    is_input_closed: bool,
}

impl ProcessIo {
    /// Opens log files and FIFOs; a client may attach as soon as this returns.
    pub(crate) fn open(request: IoRequest, open: &Arc<OpenOutlets>) -> Result<Arc<Self>, IoError> {
        let this = Arc::new(Self {
            hub: Arc::default(),
            stdin: Stdin::new(),
            state: Mutex::default(),
            ended: watch::Sender::new(false),
            stop: watch::Sender::new(false),
            open: Arc::clone(open),
            request,
        });
        if let Some(target) = this.request.log() {
            let what = |source| IoError::Open { what: "log", path: target.path.clone(), source };
            let logged = [&this.request.stdout, &this.request.stderr].map(|output| matches!(output, Output::Log(_)));
            this.hub.set_log(JsonFile::open(target.clone()).map_err(what)?, logged);
        }
        for (stream, output) in [(Stream::Stdout, &this.request.stdout), (Stream::Stderr, &this.request.stderr)] {
            match output {
                Output::Fifo(path) => this.open_output(stream, path)?,
                Output::File(path) => this.append_to(stream, path)?,
                Output::Null | Output::Attach | Output::Log(_) | Output::Binary(_) => {}
            }
        }
        let outputs = [&this.request.stdout, &this.request.stderr];
        if let Some(program) =
            outputs.iter().find_map(|output| if let Output::Binary(p) = output { Some(p) } else { None })
        {
            this.start_logger(program, outputs.map(|output| matches!(output, Output::Binary(_))))?;
        }
        Ok(this)
    }

    fn start_logger(&self, program: &Program, logged: [bool; 2]) -> Result<(), IoError> {
        let (logger, ends) = LogBinary::start(program, &self.request.subject)?;
        let mut outlets = Vec::new();
        for ((is_logged, end), stream) in logged.into_iter().zip(ends).zip([Stream::Stdout, Stream::Stderr]) {
            if !is_logged {
                continue;
            }
            let failed = |source| IoError::Setup { what: "the logger's streams", source };
            set_nonblocking(&end).map_err(failed)?;
            let end = register(end, Interest::WRITABLE).map_err(failed)?;
            let (stdout, stderr) = (stream == Stream::Stdout, stream == Stream::Stderr);
            outlets.push(Outlet::new(end, Manner { stdout, stderr, framed: false, patient: true }, &self.open));
        }
        outlets.iter().for_each(|outlet| self.hub.add(Arc::clone(outlet)));
        logger.follow(outlets);
        self.lock().logger = Some(logger);
        Ok(())
    }

    /// Returns when whoever takes the output is ready for it.
    pub(crate) async fn ready(&self) -> Result<(), IoError> {
        let logger = self.lock().logger.take();
        match logger {
            Some(logger) => logger.ready().await,
            None => Ok(()),
        }
    }

    fn open_output(&self, stream: Stream, path: &Path) -> Result<(), IoError> {
        let failed = |source| IoError::Open { what: "FIFO", path: path.to_owned(), source };
        let is_fifo = std::fs::metadata(path).map_err(failed)?.file_type().is_fifo();
        if !is_fifo {
            return self.append_to(stream, path);
        }
        // Reading too: the open does not wait for a reader, and a reader that comes and goes does not break the pipe.
        let fd = rustix::fs::open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| failed(errno.into()))?;
        let fd = register(fd, Interest::READABLE | Interest::WRITABLE).map_err(failed)?;
        let manner =
            Manner { stdout: stream == Stream::Stdout, stderr: stream == Stream::Stderr, framed: false, patient: true };
        self.hub.add(Outlet::new(fd, manner, &self.open));
        Ok(())
    }

    fn append_to(&self, stream: Stream, path: &Path) -> Result<(), IoError> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(path)
            .map_err(|source| IoError::Open { what: "output file", path: path.to_owned(), source })?;
        self.hub.add_file(stream, file);
        Ok(())
    }

    /// What the runtime gives the process, and our ends of it.
    pub(crate) fn streams(&self, spec_size: Option<(u16, u16)>) -> Result<(Stdio, Streams), IoError> {
        if self.request.terminal {
            let (rows, columns) = self.lock().size.or(spec_size).unwrap_or_default();
            return Ok((Stdio::Terminal { rows, columns, keeps_newlines: false }, Streams::default()));
        }
        let failed = |errno: rustix::io::Errno| IoError::Setup { what: "pipes", source: errno.into() };
        let null = || rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(failed);
        let Owner { uid, gid } = self.request.owner;
        let owner = ((uid != 0).then(|| Uid::from_raw(uid)), (gid != 0).then(|| Gid::from_raw(gid)));
        let pipe = || {
            let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            if owner != (None, None) {
                rustix::fs::fchown(&writer, owner.0, owner.1)?;
            }
            Ok((reader, writer))
        };
        let mut ours = Streams::default();
        let stdin = if self.request.stdin == Input::Null {
            null()?
        } else {
            let (reader, writer) = pipe().map_err(failed)?;
            ours.stdin = Some(writer);
            reader
        };
        let output = |request: &Output, our_end: &mut Option<OwnedFd>| {
            if *request == Output::Null {
                return null();
            }
            let (reader, writer) = pipe().map_err(failed)?;
            *our_end = Some(reader);
            Ok(writer)
        };
        let stdout = output(&self.request.stdout, &mut ours.stdout)?;
        let stderr = output(&self.request.stderr, &mut ours.stderr)?;
        Ok((Stdio::Fds { stdin, stdout, stderr }, ours))
    }

    /// The streams as FIFOs in a directory, instead of [`Self::streams`].
    pub(crate) fn fifos(&self, dir: &Path, name: &str) -> Result<Fifos, IoError> {
        let terminal = self.request.terminal;
        let mut fifos = Fifos {
            addresses: IoUris { terminal, ..IoUris::default() },
            ours: Streams::default(),
            input: None,
            keepers: Vec::new(),
        };
        if self.request.stdin != Input::Null {
            let (path, reader, writer) = fifo(dir, name, "stdin")?;
            fifos.addresses.stdin = path;
            fifos.input = Some(writer);
            fifos.keepers.push(reader);
        }
        if self.request.stdout != Output::Null {
            let (path, reader, writer) = fifo(dir, name, "stdout")?;
            fifos.addresses.stdout = path;
            fifos.ours.stdout = Some(reader);
            fifos.keepers.push(writer);
        }
        if self.request.stderr != Output::Null {
            let (path, reader, writer) = fifo(dir, name, "stderr")?;
            fifos.addresses.stderr = path;
            fifos.ours.stderr = Some(reader);
            fifos.keepers.push(writer);
        }
        Ok(fifos)
    }

    /// Returns when the process can get no more input; at once when it never gets any.
    pub(crate) async fn input_closed(&self) {
        if self.request.stdin != Input::Null {
            self.stdin.closed().await;
        }
    }

    /// The process exists: its output is read from now on.
    pub(crate) fn connect(&self, ours: Streams, console: Option<OwnedFd>) -> Result<(), IoError> {
        if let Some(console) = console {
            let failed = |source| IoError::Setup { what: "standard streams", source };
            set_nonblocking(&console).map_err(failed)?;
            let master = Arc::new(register(console, Interest::READABLE | Interest::WRITABLE).map_err(failed)?);
            self.copy(&master, Stream::Stdout);
            self.stdin.connect((self.request.stdin != Input::Null).then(|| Arc::clone(&master)));
            self.lock().terminal = Some(master);
            return Ok(());
        }
        self.connect_output(ours.stdout, ours.stderr)?;
        self.connect_input(ours.stdin)
    }

    /// The part of [`Self::connect`] that reads.
    pub(crate) fn connect_output(&self, stdout: Option<OwnedFd>, stderr: Option<OwnedFd>) -> Result<(), IoError> {
        let failed = |source| IoError::Setup { what: "standard streams", source };
        for (stream, fd) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)] {
            if let Some(fd) = fd {
                set_nonblocking(&fd).map_err(failed)?;
                self.copy(&Arc::new(register(fd, Interest::READABLE).map_err(failed)?), stream);
            }
        }
        Ok(())
    }

    /// The part of [`Self::connect`] that writes; `None`: the process reads from nobody.
    pub(crate) fn connect_input(&self, writer: Option<OwnedFd>) -> Result<(), IoError> {
        let registered = writer.map(|fd| {
            set_nonblocking(&fd)?;
            register(fd, Interest::WRITABLE).map(Arc::new)
        });
        let (writer, done) = match registered.transpose() {
            Ok(writer) => (writer, Ok(())),
            Err(source) => (None, Err(IoError::Setup { what: "standard input", source })),
        };
        self.stdin.connect(writer);
        done
    }

    /// Connects our end of an input FIFO as soon as somebody else reads it, whom our end lets come in late. Written to and closed before that, all
    /// it held would be gone, and who comes then would wait for ever: other shims answer that a process runs before they have opened its input.
    /// Nobody else may hold the reading end.
    pub(crate) async fn connect_when_read(self: Arc<Self>, writer: OwnedFd) {
        let again = format!("/proc/self/fd/{}", writer.as_raw_fd());
        let mut ended = self.ended.subscribe();
        // Without a reader another writer is refused (fifo(7)).
        while let Err(rustix::io::Errno::NXIO) =
            rustix::fs::open(&again, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
        {
            tokio::select! {
                () = tokio::time::sleep(READER_INTERVAL) => {}
                _ = ended.wait_for(|has_ended| *has_ended) => return self.stdin.abandon(),
            }
        }
        if let Err(error) = self.connect_input(Some(writer)) {
            log::error(&berth_types::report(&error));
        }
    }

    fn copy(&self, source: &Arc<AsyncFd<OwnedFd>>, stream: Stream) {
        let job = copier::copy(Arc::clone(source), stream, Arc::clone(&self.hub), self.stop.subscribe());
        let mut state = self.lock();
        state.sources.push(Arc::downgrade(source));
        state.copiers.push(tokio::spawn(job));
    }

    /// The process is about to run: input from another engine's FIFO is read from now on, until all its writers (we are one
    /// until CloseIO) have closed it. Not earlier: a client whose input ends before its Create is answered asks for no CloseIO.
    pub(crate) fn follow_fifo(&self) -> Result<(), IoError> {
        let Input::Fifo(path) = &self.request.stdin else { return Ok(()) };
        let failed = |source| IoError::Open { what: "FIFO", path: path.clone(), source };
        let open = |direction| {
            rustix::fs::open(path, direction | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| failed(errno.into()))
        };
        let reader = open(OFlags::RDONLY)?;
        let keeper = open(OFlags::WRONLY)?;
        let mut state = self.lock();
        if !state.is_input_closed {
            state.input_keeper = Some(keeper);
        }
        drop(state);
        let reader = register(reader, Interest::READABLE).map_err(failed)?;
        let manner = Manner { stdout: false, stderr: false, framed: false, patient: true };
        let outlet = Outlet::new(reader, manner, &self.open);
        let side = self.input_side(true, DetachKeys::new(Vec::new()), Vec::new());
        self.hub.add(Arc::clone(&outlet));
        tokio::spawn(client::follow(outlet, side));
        Ok(())
    }

    fn input_side(&self, once: bool, detach_keys: DetachKeys, early_input: Vec<u8>) -> InputSide {
        // A terminal has no end of input that we could give it.
        let once = once && !self.request.terminal;
        InputSide {
            stdin: Some(Arc::clone(&self.stdin)),
            once,
            detach_keys,
            early_input,
            process_ended: self.ended.subscribe(),
        }
    }

    /// Lets a client take part: it gets the output from now on, and its input reaches the process.
    pub(crate) fn attach(&self, options: Options, stream: OwnedFd) -> Result<(), IoError> {
        if options.stdin && self.request.stdin == Input::Null {
            return Err(IoError::NoInput);
        }
        let fd = outlet::prepare(stream, Interest::READABLE | Interest::WRITABLE)
            .map_err(|source| IoError::Client { source })?;
        let manner = Manner {
            stdout: options.stdout || (options.stderr && self.request.terminal),
            stderr: options.stderr,
            framed: !self.request.terminal,
            patient: false,
        };
        let outlet = Outlet::new(fd, manner, &self.open);
        let keys = if self.request.terminal { options.detach_keys } else { Vec::new() };
        let once = self.request.stdin == Input::Attach { once: true };
        let mut side = self.input_side(once && options.stdin, DetachKeys::new(keys), options.early_input);
        if !options.stdin {
            side.stdin = None;
        }
        self.hub.add(Arc::clone(&outlet));
        tokio::spawn(client::follow(outlet, side));
        Ok(())
    }

    /// Sets the terminal's size, or remembers it until there is a terminal.
    pub(crate) fn resize(&self, rows: u16, columns: u16) -> Result<(), IoError> {
        if !self.request.terminal {
            return Err(IoError::NoTerminal);
        }
        let mut state = self.lock();
        state.size = Some((rows, columns));
        let Some(master) = &state.terminal else { return Ok(()) };
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(master.get_ref(), size)
            .map_err(|errno| IoError::Setup { what: "the terminal's size", source: errno.into() })
    }

    pub(crate) fn close_stdin(&self) {
        let mut state = self.lock();
        state.is_input_closed = true;
        // A FIFO's other writers may still have something to say; its end closes the input. A terminal has no end.
        state.input_keeper = None;
        drop(state);
        if matches!(self.request.stdin, Input::Attach { .. }) && !self.request.terminal {
            self.stdin.close();
        }
    }

    /// Returns when the readers of FIFOs have what the process wrote until its end, or do not read it. Told of the end earlier, some clients (`ctr`
    /// below 1.7) close their FIFOs on what they still hold.
    pub(crate) async fn delivered(&self) {
        let ended = Instant::now();
        let mut last_read = ended;
        let mut next_look = READER_MISSED;
        let mut left = self.underway();
        while left > 0 && last_read.elapsed() < READER_STALLS && ended.elapsed() < READER_IS_LATE {
            if last_read.elapsed() >= next_look {
                if !self.hub.has_fifo_reader() {
                    return;
                }
                next_look *= 2;
            }
            tokio::time::sleep(DRAIN_INTERVAL).await;
            let now = self.underway();
            if now < left {
                last_read = Instant::now();
            }
            left = now;
        }
    }

    /// Bytes that the process wrote and readers of FIFOs do not have yet.
    fn underway(&self) -> u64 {
        let Some(in_fifos) = self.hub.underway() else { return 0 };
        let sources: Vec<_> = self.lock().sources.iter().filter_map(Weak::upgrade).collect();
        in_fifos + sources.iter().map(|source| super::unread(source.get_ref())).sum::<u64>()
    }

    /// The process has ended: delivers what it still wrote, ends the log, closes clients once they have everything.
    pub(crate) async fn settle(&self) {
        self.ended.send_replace(true);
        self.stdin.abandon();
        let mut copiers = std::mem::take(&mut self.lock().copiers);
        let all = async {
            for copier in &mut copiers {
                copier.await.ok();
            }
        };
        if tokio::time::timeout(OUTPUT_AFTER_EXIT, all).await.is_err() {
            self.stop.send_replace(true);
            for copier in copiers {
                if !copier.is_finished() {
                    copier.await.ok();
                }
            }
        }
        let mut state = std::mem::take(&mut *self.lock());
        state.terminal = None;
        self.hub.finish();
    }

    /// The process never ran: its clients' streams are left to the engine, which tells them why.
    pub(crate) fn let_go(&self) {
        self.ended.send_replace(true);
        self.stdin.abandon();
        self.hub.let_go();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const STREAMS: [&str; 3] = ["stdin", "stdout", "stderr"];

/// Both sides have opened them, or nobody will.
pub(crate) fn remove_fifos(dir: &Path, name: &str) {
    for stream in STREAMS {
        std::fs::remove_file(fifo_path(dir, name, stream)).ok();
    }
}

fn fifo_path(dir: &Path, name: &str, stream: &str) -> PathBuf {
    dir.join(format!("{name}-{stream}"))
}

/// Makes a FIFO anew; its path, and both ends. Neither open waits.
fn fifo(dir: &Path, name: &str, stream: &str) -> Result<(String, OwnedFd, OwnedFd), IoError> {
    let path = fifo_path(dir, name, stream);
    let failed = |errno: rustix::io::Errno| IoError::Open { what: "FIFO", path: path.clone(), source: errno.into() };
    std::fs::remove_file(&path).ok();
    rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).map_err(failed)?;
    let open = |direction| rustix::fs::open(&path, direction | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
    let reader = open(OFlags::RDONLY).map_err(failed)?;
    let writer = open(OFlags::WRONLY).map_err(failed)?;
    Ok((path.display().to_string(), reader, writer))
}

#[cfg(test)]
mod tests;
