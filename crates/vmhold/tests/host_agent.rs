//! The real program, killed for real: a client writes 16 deep over NBD and remembers what was
//! answered; the agent is killed with SIGKILL in the middle, started again on its flash, and
//! everything that was answered is read back. In the end the layer is taken away and the
//! backing file alone holds it all.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BLOCK: usize = 4096;
const BLOCKS: u64 = 2048;
const DEPTH: usize = 16;

struct Host {
    dir: PathBuf,
    agent: Option<Child>,
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}

impl Host {
    fn vmhold(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmhold"));
        command.args(words).arg("--dir").arg(&self.dir).env_remove("VMHOLD_DIR").env_remove("VMHOLD_API");
        command
    }

    /// Starts the agent and returns when it has told that its doors are open.
    fn start(&mut self) {
        let flash = self.dir.join("flash").display().to_string();
        let mut command = self.vmhold(&["host", "serve", "--json", "--flash", &flash, "--flash-size", "24MiB"]);
        let mut agent = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut told = [0; 1];
        agent.stdout.as_mut().unwrap().read_exact(&mut told).expect("the agent tells when it serves");
        self.agent = Some(agent);
    }

    fn kill(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    fn accel(&self, words: &[&str]) -> String {
        let out = self.vmhold(&[&["accel"][..], words].concat()).output().unwrap();
        assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    fn connect(&self) -> UnixStream {
        let mut stream = UnixStream::connect(self.dir.join("nbd.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
        stream.write_all(&[0, 0, 0, 3]).unwrap();
        stream.write_all(b"IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x03vm1").unwrap();
        let mut export = [0; 10];
        stream.read_exact(&mut export).unwrap();
        assert_eq!(export[..8], (BLOCKS * BLOCK as u64).to_be_bytes());
        stream
    }
}

fn request(kind: u16, cookie: u64, block: u64) -> Vec<u8> {
    let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
    bytes.extend_from_slice(&0_u16.to_be_bytes());
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&cookie.to_be_bytes());
    bytes.extend_from_slice(&(block * BLOCK as u64).to_be_bytes());
    bytes.extend_from_slice(&(BLOCK as u32).to_be_bytes());
    bytes
}

/// The cookie of a good answer; none when the agent has gone.
fn answer(stream: &mut UnixStream) -> Option<u64> {
    let mut reply = [0; 16];
    stream.read_exact(&mut reply).ok()?;
    assert_eq!(reply[..8], [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0], "an error was answered");
    Some(u64::from_be_bytes(reply[8..].try_into().unwrap()))
}

fn content(version: u64) -> Vec<u8> {
    version.to_le_bytes().repeat(BLOCK / 8)
}

/// What was written to a block: the last version answered, and those that may be there.
#[derive(Clone, Default)]
struct Known {
    answered: u64,
    possible: Vec<u64>,
}

struct Writer {
    state: u64,
    version: u64,
    blocks: BTreeMap<u64, Known>,
}

impl Writer {
    fn draw(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % bound
    }

    /// Writes, `DEPTH` at a time and never two of one block at once, until the agent is gone.
    fn write_until_killed(&mut self, mut stream: UnixStream) -> u64 {
        let mut flying: BTreeMap<u64, u64> = BTreeMap::new();
        let mut answered = 0;
        loop {
            while flying.len() < DEPTH {
                let block = self.draw(BLOCKS);
                if flying.values().any(|&other| other == block) {
                    continue;
                }
                self.version += 1;
                let version = self.version;
                self.blocks.entry(block).or_default().possible.push(version);
                let mut bytes = request(1, version, block);
                bytes.extend_from_slice(&content(version));
                if stream.write_all(&bytes).is_err() {
                    return answered;
                }
                flying.insert(version, block);
            }
            let Some(version) = answer(&mut stream) else { return answered };
            let block = flying.remove(&version).unwrap();
            let known = self.blocks.get_mut(&block).unwrap();
            known.answered = version;
            known.possible.retain(|&other| other >= version);
            answered += 1;
        }
    }

    fn judge(&self, read: impl Fn(u64) -> Vec<u8>) {
        for (&block, known) in &self.blocks {
            let bytes = read(block);
            let version = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            assert_eq!(bytes, if version == 0 { vec![0; BLOCK] } else { content(version) }, "block {block} is torn");
            let fine = known.possible.contains(&version) || known.answered == version;
            assert!(fine, "block {block} holds {version}, {} was answered", known.answered);
        }
    }
}

fn read_block(stream: &mut UnixStream, block: u64) -> Vec<u8> {
    stream.write_all(&request(0, block, block)).unwrap();
    assert_eq!(answer(stream), Some(block));
    let mut bytes = vec![0; BLOCK];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn kills(policy: &str, kills: u64) {
    let dir = tempfile::tempdir().unwrap();
    let backing = dir.path().join("vm1.img");
    std::fs::File::create(&backing).unwrap().set_len(BLOCKS * BLOCK as u64).unwrap();
    let mut host = Host { dir: dir.path().to_owned(), agent: None };
    let mut writer = Writer { state: 7, version: 0, blocks: BTreeMap::new() };
    host.start();
    host.accel(&["attach", "vm1", "--backing", backing.to_str().unwrap(), "--policy", policy, "--log", "12MiB"]);
    let mut answered = 0;
    for _ in 0..kills {
        let stream = host.connect();
        let mut own = writer;
        let task = std::thread::spawn(move || {
            let answered = own.write_until_killed(stream);
            (own, answered)
        });
        // Not a test of time: any moment is a good one to die.
        let moment = Instant::now() + Duration::from_millis(150);
        while Instant::now() < moment {
            std::thread::sleep(Duration::from_millis(10));
        }
        host.kill();
        let (back, count) = task.join().unwrap();
        writer = back;
        answered += count;
        host.start();
        let stream = std::cell::RefCell::new(host.connect());
        writer.judge(|block| read_block(&mut stream.borrow_mut(), block));
    }
    assert!(answered > kills, "too little was written to tell anything: {answered}");
    detached(&host, &backing, &writer);
}

fn detached(host: &Host, backing: &Path, writer: &Writer) {
    let told = host.accel(&["detach", "vm1"]);
    assert!(told.contains("complete by itself"), "{told}");
    let file = std::fs::read(backing).unwrap();
    writer.judge(|block| file[block as usize * BLOCK..][..BLOCK].to_vec());
}

/// Write-back: what was answered is on flash, survives the process, and reaches the backing
/// file.
#[test]
fn a_killed_agent_loses_nothing_under_write_back() {
    kills("wb", 4);
}

/// Write-through: what was answered is in the backing file already.
#[test]
fn a_killed_agent_loses_nothing_under_write_through() {
    kills("wt", 2);
}
