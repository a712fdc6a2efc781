//! A job in the machine that outlives the connection it was started over.

use rand::RngCore;
use rand::rngs::OsRng;
use xennet_tunnel::ExecEvent;

use super::{Complaints, Guest, GuestError, JOB_DIR, quoted};

/// Which of a job's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A job, and how much of its output has been seen.
#[derive(Debug)]
pub struct Job {
    /// Where the machine keeps the job's output, process id and exit status.
    dir: String,
    /// What to run, for the shell.
    command: String,
    stdout_seen: u64,
    stderr_seen: u64,
}

impl Job {
    /// A job that runs `argv` in [`JOB_DIR`]. Nothing happens before [`Job::start`].
    pub fn new(argv: &[String]) -> Job {
        let words: Vec<String> = argv.iter().map(|word| quoted(word)).collect();
        let dir = format!("/data/.xennet/{:016x}", OsRng.next_u64());
        Job { dir, command: words.join(" "), stdout_seen: 0, stderr_seen: 0 }
    }

    /// Starts it; does nothing if it has been started. So after a broken connection it is safe to start it again.
    pub async fn start(&self, guest: &Guest) -> Result<(), GuestError> {
        let Job { dir, command, .. } = self;
        // The directory's making is what tells a first start from a second one. The status appears whole, by its renaming, and
        // only when all output is written. Exit statuses are the shell's: 126 and 127 for what cannot be run, 128 + n for signals.
        let body = quoted(&format!(
            "echo $$ >{dir}/pid; \"$@\" >{dir}/stdout 2>{dir}/stderr; echo $? >{dir}/status.new; mv {dir}/status.new {dir}/status"
        ));
        let script = format!(
            "mkdir -p /data/.xennet {JOB_DIR} && cd {JOB_DIR} || exit 1; mkdir {dir} 2>/dev/null || exit 0; \
             setsid sh -c {body} sh {command} </dev/null >/dev/null 2>&1 &"
        );
        guest.run(&script).await.map(drop)
    }

    /// Passes on what the job writes, and gives its exit status when it has ended. If the connection breaks, connect again and
    /// call it again: it goes on where it was.
    pub async fn follow(&mut self, guest: &Guest, mut on_output: impl FnMut(Stream, &[u8])) -> Result<u8, GuestError> {
        let Job { dir, stdout_seen, stderr_seen, .. } = self;
        // The status is looked for before the outputs are read: what is read after it was there is all there is.
        let script = format!(
            r#"o={stdout_seen}; e={stderr_seen}
give() {{ dd if="$1" iflag=skip_bytes,count_bytes skip="$2" count="$3" bs=64k status=none; }}
while :; do
  ended=; [ -f {dir}/status ] && ended=1
  n=$(stat -c %s {dir}/stdout 2>/dev/null || echo 0)
  [ "$n" -gt "$o" ] && {{ give {dir}/stdout "$o" $((n-o)) || exit 1; o=$n; }}
  n=$(stat -c %s {dir}/stderr 2>/dev/null || echo 0)
  [ "$n" -gt "$e" ] && {{ give {dir}/stderr "$e" $((n-e)) >&2 || exit 1; e=$n; }}
  [ -n "$ended" ] && exit 0
  sleep 0.2
done"#
        );
        let mut output = guest.ssh.exec(&script).await?.output;
        let mut end = None;
        while let Some(event) = output.next().await {
            match event {
                ExecEvent::Stdout(piece) => {
                    *stdout_seen += piece.len() as u64;
                    on_output(Stream::Stdout, &piece);
                }
                ExecEvent::Stderr(piece) => {
                    *stderr_seen += piece.len() as u64;
                    on_output(Stream::Stderr, &piece);
                }
                other => end = Some(other),
            }
        }
        Complaints::default().judge(end)?;
        let status = guest.run(&format!("cat {dir}/status")).await?;
        let text = String::from_utf8_lossy(&status.stdout).trim().to_owned();
        text.parse().map_err(|_| GuestError::Unasked { found: format!("{text:?} as an exit status") })
    }

    /// Ends the job and all it has started.
    pub async fn kill(&self, guest: &Guest) -> Result<(), GuestError> {
        let dir = &self.dir;
        guest.run(&format!("[ ! -f {dir}/pid ] || kill -KILL -\"$(cat {dir}/pid)\"")).await.map(drop)
    }
}
