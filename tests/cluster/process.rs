//! Child processes that never outlive the test.

use crate::helpers::wait_for;
use anyhow::{Context, Result, bail};
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;
use std::{io, thread};
use tempfile::TempDir;

/// Everything listens here: nothing of a testbed can be reached from outside the machine.
pub const LOOPBACK: &str = "127.0.0.1";

/// A running component, which ends with this value.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    memory: Option<MemoryLimit>,
}

impl Process {
    /// Starts `command` as `name`; what it prints is added to `<dir>/<name>.log`.
    ///
    /// Of the environment it sees what `command` sets and nothing of the caller's (proxies, a kubeconfig, Go
    /// or AWS settings), and `dir` is its home, so that no configuration of the user is read.
    pub fn start(name: &str, mut command: Command, dir: &Path) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let stderr = file.try_clone().context("cannot share the log file")?;
        let own: Vec<(OsString, OsString)> = command
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        command
            .env_clear()
            .envs(own)
            .env("HOME", dir)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(stderr);
        let child = spawn(command).with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log, memory: None })
    }

    /// An error with the end of its log if the process is no longer there.
    pub fn check_alive(&mut self) -> Result<()> {
        let ended: Option<ExitStatus> = self.child.try_wait().context("cannot ask for the process")?;
        if let Some(status) = ended {
            bail!(
                "{} ended with {status}; the end of {}:\n{}",
                self.name,
                self.log.display(),
                self.log_tail()
            );
        }
        Ok(())
    }

    /// Lets the kernel kill it when it takes more memory than this many bytes, as a container's limit does.
    ///
    /// Where the machine allows no control group, that is told, and [`Self::peak_memory`] is all there is.
    pub fn limit_memory(&mut self, bytes: u64) {
        match MemoryLimit::new(self.child.id(), bytes) {
            Ok(limit) => self.memory = Some(limit),
            Err(error) => println!("{}: the memory is not limited, no control group: {error}", self.name),
        }
    }

    /// Kills it (SIGKILL), and returns when it is gone.
    pub fn kill(&mut self) {
        // An error says that it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Stops the process where it stands (SIGSTOP).
    pub fn freeze(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// Lets it go on (SIGCONT).
    pub fn thaw(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: libc::c_int) {
        let id = libc::pid_t::try_from(self.child.id()).expect("a process id");
        // SAFETY: a plain system call; the child has not been waited for, so the id is still its own.
        assert_eq!(unsafe { libc::kill(id, signal) }, 0, "{} can be signalled", self.name);
    }

    /// Asks the process to end (SIGTERM), and returns how it did.
    pub async fn terminate(mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        wait_for(&format!("{} to end", self.name), Duration::from_secs(30), async || {
            self.child.try_wait().expect("the process can be asked for")
        })
        .await
    }

    /// The memory that it has now, in bytes (`VmRSS`, proc_pid_status(5)).
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most memory that it ever had, in bytes (`VmHWM`, proc_pid_status(5)).
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        1024 * kilobytes.unwrap_or_else(|| panic!("{} is gone", self.name))
    }

    /// Everything that the process has printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines that the process printed.
    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Process {
    /// Kills and waits: afterwards its port is free and nothing writes into its folder any more.
    fn drop(&mut self) {
        self.kill();
    }
}

/// A control group for one process, which goes when the process has gone.
struct MemoryLimit(PathBuf);

impl MemoryLimit {
    fn new(process: u32, bytes: u64) -> io::Result<Self> {
        // Version 1 has a folder of its own for memory, version 2 one for everything.
        let (root, limit) = if Path::new("/sys/fs/cgroup/memory/cgroup.procs").exists() {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            ("/sys/fs/cgroup", "memory.max")
        };
        let group = Self(Path::new(root).join(format!("spot-guard-test-{process}")));
        fs::create_dir(&group.0)?;
        fs::write(group.0.join(limit), bytes.to_string())?;
        fs::write(group.0.join("cgroup.procs"), process.to_string())?;
        Ok(group)
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// A folder that goes with this value; after a panic it stays, for the logs in it.
pub struct Folder(TempDir);

impl Folder {
    /// A new one in the target folder, whose name begins with `name`.
    pub fn create(name: &str) -> Result<Self> {
        let folder =
            tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(env!("CARGO_TARGET_TMPDIR"));
        Ok(Self(folder.context("cannot create a folder")?))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.disable_cleanup(true);
            // etcd's data is large, and nobody reads it.
            let _ = fs::remove_dir_all(self.path().join("etcd"));
            println!("the logs are in {}", self.path().display());
        }
    }
}

/// Starts a process that the kernel kills when this one ends, however it ends.
///
/// The kernel's promise is about the *thread* that started the child, and test and runtime threads come
/// and go. So one thread that lasts as long as the process starts them all.
fn spawn(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in orders {
                die_with_parent(&mut command);
                // Nobody waits for the answer only if the test has just died: then the child goes too.
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, child) = mpsc::channel();
    spawner.send((command, answer)).map_err(|_| io::Error::other("the spawning thread has ended"))?;
    child.recv().map_err(|_| io::Error::other("the spawning thread has ended"))?
}

#[cfg(target_os = "linux")]
fn die_with_parent(command: &mut Command) {
    use std::os::unix::process::CommandExt;

    let parent = std::process::id();
    // SAFETY: between fork and exec only calls that are safe in a signal handler are allowed; prctl and
    // getppid are, and the closure neither allocates nor locks.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have ended before the line above took effect.
            if u32::try_from(libc::getppid()).is_ok_and(|id| id == parent) {
                Ok(())
            } else {
                Err(io::Error::from_raw_os_error(libc::ESRCH))
            }
        });
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_: &mut Command) {}

/// `<name>=<path>`, for paths of any bytes.
pub fn flag(name: &str, path: impl AsRef<Path>) -> OsString {
    let mut flag = OsString::from(name);
    flag.push("=");
    flag.push(path.as_ref());
    flag
}

/// A port that nobody listens on, never given out twice by this process.
///
/// It lies below the range from which the kernel takes the ports of outgoing connections: one of those
/// could otherwise take it before its component listens.
pub fn free_port() -> u16 {
    // A generator of its own: a test may seed that of its thread, and so would take the ports of another run.
    static GIVEN_OUT: Mutex<Option<(fastrand::Rng, HashSet<u16>)>> = Mutex::new(None);
    let mut given_out = GIVEN_OUT.lock().unwrap_or_else(PoisonError::into_inner);
    let (random, given_out) = given_out.get_or_insert_with(|| (fastrand::Rng::new(), HashSet::new()));
    for _ in 0..1000 {
        let port = random.u16(10_000..32_000);
        if TcpListener::bind((LOOPBACK, port)).is_ok() && given_out.insert(port) {
            return port;
        }
    }
    panic!("no free port between 10000 and 32000 in 1000 tries");
}

/// The folder with the binaries of the testbed: `SPOT_GUARD_TESTBED`, as `make test-old` sets it, or what
/// `testbed/build` answers, which builds them if need be (the first time takes minutes).
pub fn binaries() -> &'static Path {
    static BINARIES: OnceLock<PathBuf> = OnceLock::new();
    BINARIES.get_or_init(|| {
        if let Some(folder) = std::env::var_os("SPOT_GUARD_TESTBED") {
            return PathBuf::from(folder);
        }
        made_by("testbed/build", &[]).expect("testbed/build prints the folder")
    })
}

/// Runs a script of the testbed, whose last line says where that is which it made. It prints nothing if it
/// could not make it and that is no failure.
pub fn made_by(script: &str, arguments: &[&str]) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
    let output = Command::new(path)
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {script}: {error}"));
    assert!(output.status.success(), "{script} failed: {}", output.status);
    let stdout = String::from_utf8(output.stdout).expect("a path is printed");
    stdout.lines().last().map(PathBuf::from)
}

/// A program in the folder that a script of the testbed made.
pub fn built(script: &str, arguments: &[&str], name: &str) -> PathBuf {
    made_by(script, arguments).unwrap_or_else(|| panic!("{script} prints no folder")).join(name)
}
