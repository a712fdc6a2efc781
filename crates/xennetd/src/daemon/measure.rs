//! Measuring a guest through its tunnel: the program in the guest works, the clock is here.

use std::time::{Duration, Instant};

use rand::RngCore;
use rand::rngs::OsRng;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use xennet_meter::Figures;
use xennet_probe::{CYCLES_PER_STEP, chain};
use xennet_tunnel::{ExecEvent, ExecInput, ExecOutput, GuestSsh, TunnelError};

/// The measuring program, as an executable for the guest.
static PROBE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/xennet-probe"));

/// How long each stage should take. Shorter ones are noise, longer ones keep people waiting.
const STAGE: Duration = Duration::from_millis(900);
/// How long one run of the processor's stage takes. So short a run often has a core for itself even on a busy host, and the fastest
/// of many tells what the core can do rather than what else the host was doing.
const RUN: Duration = Duration::from_millis(40);
/// How many such runs there are.
const RUNS: usize = 25;
/// After this long a guest that does not answer has failed.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Bytes of output that may come before an answer's end of line.
const MOST_OUTPUT: usize = 64 << 20;
/// The most that is taken off an answer's time for the way there and back. A busy moment during the pings must not make everything
/// after it look fast; a machine that really is farther away looks a little slow instead.
const MOST_ROUND_TRIP: Duration = Duration::from_millis(4);
/// How much of the disk may be written, MiB.
const MOST_DISK_MIB: u64 = 64;
/// How much is written first, to find out how much takes about a stage, MiB.
const TRIAL_DISK_MIB: u64 = 2;

/// Why a guest could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The way into the guest broke.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// The program did not do what it was asked.
    #[error("the measuring program answered `{answer}` to `{asked}`")]
    Answer {
        /// The command.
        asked: String,
        /// The answer.
        answer: String,
    },
    /// It did not answer.
    #[error("the guest did not answer `{asked}` within {} s", ANSWER_WITHIN.as_secs())]
    Silent {
        /// The command.
        asked: String,
    },
    /// It answered without having done the work.
    #[error("the guest's result for {steps} steps is {answer}, but the right one is {right:016x}: it did not do the work")]
    Cheat {
        /// Steps asked for.
        steps: u64,
        /// What it said.
        answer: String,
        /// What is right.
        right: u64,
    },
    /// The program could not be put there.
    #[error("the measuring program cannot be put into the guest: {0}")]
    Install(String),
}

/// What was measured, and the key the guest's SSH server showed.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// The figures.
    pub figures: Figures,
    /// The guest's host key.
    pub host_key: [u8; 32],
}

/// Measures the guest at the other end of `stream` in less than ten seconds; `tell` hears the name of each stage.
///
/// # Errors
/// If the guest cannot be reached, does not answer, or answers without having done the work.
pub async fn measure<S>(stream: S, key_seed: [u8; 32], disk_mib: u32, tell: impl Fn(&str)) -> Result<Measured, MeasureError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let begun = Instant::now();
    tell("login");
    let (guest, host_key) = GuestSsh::connect(stream, "root", key_seed, None).await?;
    let install = "cat > /tmp/xennet-probe && chmod 700 /tmp/xennet-probe";
    let installed = guest.run(install, PROBE).await?;
    if !installed.success() {
        return Err(MeasureError::Install(String::from_utf8_lossy(&installed.stderr).chars().take(200).collect()));
    }
    let about = guest.run("nproc; awk '/MemTotal/{print $2}' /proc/meminfo; df -Pk /data | awk 'END{print $2}'", b"").await?;
    let about = String::from_utf8_lossy(&about.stdout).into_owned();
    let mut about = about.lines().map(|line| line.trim().parse::<u64>().unwrap_or(0));
    let mut next = || about.next().unwrap_or(0);
    let (cores, memory_kib, disk_kib) = (next(), next(), next());

    let running = guest.exec("exec /tmp/xennet-probe /data").await?;
    let mut probe = Probe { input: running.input, output: running.output, buffer: Vec::new(), round_trip: Duration::ZERO };
    probe.round_trip = probe.quickest_ping().await?;
    tell("cpu");
    let core_mhz = probe.cpu(cores.clamp(1, 4096)).await?;
    tell("memory");
    let memory_mb_s = probe.memory(memory_kib / 1024).await?;
    tell("disk");
    let (disk_write_mb_s, disk_read_mb_s) = probe.disk(u64::from(disk_mib)).await?;
    tell("network");
    let down_kbit_s = probe.network(Direction::Down).await?;
    let up_kbit_s = probe.network(Direction::Up).await?;
    probe.say("quit").await?;
    let figures = Figures {
        cores: u16::try_from(cores).unwrap_or(u16::MAX),
        core_mhz: narrow(core_mhz),
        memory_mib: narrow(memory_kib / 1024),
        memory_mb_s: narrow(memory_mb_s),
        disk_mib: narrow(disk_kib / 1024),
        disk_write_mb_s: narrow(disk_write_mb_s),
        disk_read_mb_s: narrow(disk_read_mb_s),
        down_kbit_s: narrow(down_kbit_s),
        up_kbit_s: narrow(up_kbit_s),
        took_ms: narrow(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)),
    };
    Ok(Measured { figures, host_key })
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Which way bytes flow, as the guest sees it.
#[derive(Clone, Copy)]
enum Direction {
    Down,
    Up,
}

/// The running program.
struct Probe {
    input: ExecInput,
    output: ExecOutput,
    buffer: Vec<u8>,
    round_trip: Duration,
}

impl Probe {
    async fn say(&mut self, command: &str) -> Result<(), MeasureError> {
        self.write(format!("{command}\n").as_bytes(), command).await
    }

    async fn write(&mut self, bytes: &[u8], asked: &str) -> Result<(), MeasureError> {
        let writing = async {
            self.input.write_all(bytes).await?;
            self.input.flush().await
        };
        match timeout(ANSWER_WITHIN, writing).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(MeasureError::Silent { asked: asked.to_owned() }),
        }
    }

    /// Waits for the line that ends the answer, after `before` bytes of other output.
    async fn answer(&mut self, asked: &str, before: usize) -> Result<String, MeasureError> {
        let silent = || MeasureError::Silent { asked: asked.to_owned() };
        loop {
            let line = self.buffer.get(before..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n'));
            if let Some(end) = line {
                let answer = String::from_utf8_lossy(&self.buffer[before..before + end]).into_owned();
                self.buffer.drain(..=before + end);
                return Ok(answer);
            }
            if self.buffer.len() > MOST_OUTPUT {
                return Err(MeasureError::Answer { asked: asked.to_owned(), answer: "far too much".to_owned() });
            }
            match timeout(ANSWER_WITHIN, self.output.next()).await {
                Ok(Some(ExecEvent::Stdout(bytes))) => self.buffer.extend_from_slice(&bytes),
                Ok(Some(ExecEvent::Stderr(_))) => {}
                Ok(Some(_) | None) | Err(_) => return Err(silent()),
            }
        }
    }

    /// Asks, waits for `done`, gives what follows it and the time it took without the way there and back.
    async fn timed(&mut self, command: &str) -> Result<(String, Duration), MeasureError> {
        let begun = Instant::now();
        self.say(command).await?;
        let answer = self.answer(command, 0).await?;
        let took = begun.elapsed().saturating_sub(self.round_trip).max(Duration::from_micros(1));
        match answer.strip_prefix("done") {
            Some(rest) => Ok((rest.trim().to_owned(), took)),
            None => Err(MeasureError::Answer { asked: command.to_owned(), answer: answer.chars().take(200).collect() }),
        }
    }

    async fn quickest_ping(&mut self) -> Result<Duration, MeasureError> {
        let mut quickest = MOST_ROUND_TRIP;
        for _ in 0..8 {
            let begun = Instant::now();
            self.say("ping").await?;
            self.answer("ping", 0).await?;
            quickest = quickest.min(begun.elapsed());
        }
        Ok(quickest)
    }

    /// Effective clock of each core with all of them at work, MHz. The result is worked out here too: no work, no figure.
    async fn cpu(&mut self, cores: u64) -> Result<u64, MeasureError> {
        let seed = OsRng.next_u64() >> 1;
        let mut steps = 200_000_u64;
        let mut best = self.timed(&format!("cpu {cores} {seed} {steps}")).await?.1;
        while best < RUN && steps < 1_000_000_000 {
            steps = longer(steps, best);
            best = self.timed(&format!("cpu {cores} {seed} {steps}")).await?.1;
        }
        let right = tokio::task::spawn_blocking(move || chain(seed, steps)).await;
        let right = right.map_err(|error| MeasureError::Install(error.to_string()))?;
        for _ in 0..RUNS {
            let (answer, took) = self.timed(&format!("cpu {cores} {seed} {steps}")).await?;
            if answer != format!("{right:016x}") {
                return Err(MeasureError::Cheat { steps, answer: answer.chars().take(40).collect(), right });
            }
            best = best.min(took);
        }
        Ok(per_micro(steps.saturating_mul(CYCLES_PER_STEP), best))
    }

    /// Speed of copying, 10^6 bytes a second. The first command also gets the memory, and does not count.
    async fn memory(&mut self, memory_mib: u64) -> Result<u64, MeasureError> {
        // Two buffers of this size must fit beside the system.
        let mib = (memory_mib / 8).clamp(4, 64);
        self.timed(&format!("memory {mib} 1")).await?;
        let mut passes = 2_u64;
        let mut best = self.timed(&format!("memory {mib} {passes}")).await?.1;
        while best < RUN && passes < 50_000 {
            passes = longer(passes, best);
            best = self.timed(&format!("memory {mib} {passes}")).await?.1;
        }
        for _ in 0..2 {
            best = best.min(self.timed(&format!("memory {mib} {passes}")).await?.1);
        }
        Ok(per_micro((mib << 20).saturating_mul(passes), best))
    }

    /// Speeds of writing with a sync at the end and of reading back, 10^6 bytes a second.
    async fn disk(&mut self, disk_mib: u64) -> Result<(u64, u64), MeasureError> {
        let (_, trial) = self.timed(&format!("write {TRIAL_DISK_MIB}")).await?;
        let aimed = u128::from(TRIAL_DISK_MIB) * STAGE.as_micros() / trial.as_micros().max(1);
        let most = (disk_mib / 4).clamp(TRIAL_DISK_MIB, MOST_DISK_MIB);
        let mib = u64::try_from(aimed).unwrap_or(most).clamp(TRIAL_DISK_MIB, most);
        let (_, wrote) = self.timed(&format!("write {mib}")).await?;
        let (_, read) = self.timed(&format!("read {mib}")).await?;
        Ok((per_micro(mib << 20, wrote), per_micro(mib << 20, read)))
    }

    /// Speed through the tunnel, kbit/s.
    async fn network(&mut self, direction: Direction) -> Result<u64, MeasureError> {
        let mut bytes = 256 * 1024_usize;
        loop {
            let took = self.transfer(direction, bytes).await?;
            if took * 3 < STAGE && bytes < MOST_OUTPUT / 4 {
                bytes *= 4;
                continue;
            }
            return Ok(per_micro(bytes as u64 * 8 * 1000, took));
        }
    }

    async fn transfer(&mut self, direction: Direction, bytes: usize) -> Result<Duration, MeasureError> {
        let begun = Instant::now();
        let (command, before) = match direction {
            Direction::Down => {
                let command = format!("sink {bytes}");
                self.say(&command).await?;
                self.write(&vec![0x5a; bytes], &command).await?;
                (command, 0)
            }
            Direction::Up => {
                let command = format!("source {bytes}");
                self.say(&command).await?;
                (command, bytes)
            }
        };
        let answer = self.answer(&command, before).await?;
        if answer != "done" {
            return Err(MeasureError::Answer { asked: command, answer: answer.chars().take(200).collect() });
        }
        Ok(begun.elapsed().saturating_sub(self.round_trip).max(Duration::from_micros(1)))
    }
}

/// How much work to try next, when so much took too short a time to tell: at least twice, at most eight times as much.
fn longer(work: u64, took: Duration) -> u64 {
    let aimed = u128::from(work) * RUN.as_micros() / took.as_micros().max(1);
    u64::try_from(aimed).unwrap_or(u64::MAX).clamp(work * 2, work * 8)
}

/// So many in that time, for each microsecond; at least 1, because a figure of 0 means that nothing was measured.
fn per_micro(count: u64, took: Duration) -> u64 {
    let micros = took.as_micros().max(1);
    u64::try_from(u128::from(count) / micros).unwrap_or(u64::MAX).max(1)
}
