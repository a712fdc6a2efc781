//! Runs in the guest; see the library's documentation for what it obeys.

mod chain;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The most of anything one line may ask for, so that a mistyped number does not fill a disk: MiB, or 2^20 bytes.
const MOST_MIB: usize = 1024;
const MIB: usize = 1 << 20;
/// `O_DIRECT` of Linux on x86-64: read past the page cache.
const O_DIRECT: i32 = 0o40000;

fn main() -> io::Result<()> {
    let dir = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let file = dir.join("xennet-probe.data");
    let mut input = io::stdin().lock();
    let mut output = io::stdout().lock();
    let mut line = String::new();
    let mut buffers = (Vec::new(), Vec::new());
    loop {
        line.clear();
        if (&mut input).take(200).read_line(&mut line)? == 0 {
            break;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match words.as_slice() {
            ["ping"] => Ok("pong".to_owned()),
            ["cpu", threads, seed, steps] => cpu(threads, seed, steps),
            ["memory", mib, passes] => memory(&mut buffers, mib, passes),
            ["write", mib] => write(&file, mib),
            ["read", mib] => read(&file, mib),
            ["sink", bytes] => sink(&mut input, bytes),
            ["source", bytes] => source(&mut output, bytes),
            ["quit"] => break,
            _ => Err(io::Error::other("unknown command")),
        };
        match answer {
            Ok(answer) => writeln!(output, "{answer}")?,
            Err(error) => writeln!(output, "error {error}")?,
        }
        output.flush()?;
    }
    let _ = fs::remove_file(&file);
    Ok(())
}

fn number(word: &str, most: usize) -> io::Result<usize> {
    match word.parse() {
        Ok(number) if number <= most => Ok(number),
        _ => Err(io::Error::other(format!("{word} is no number up to {most}"))),
    }
}

fn cpu(threads: &str, seed: &str, steps: &str) -> io::Result<String> {
    let threads = number(threads, 4096)?.max(1) as u64;
    let seed: u64 = seed.parse().map_err(io::Error::other)?;
    let steps: u64 = steps.parse().map_err(io::Error::other)?;
    let first = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|t| scope.spawn(move || chain::chain(seed.wrapping_add(t), steps))).collect();
        let first = chain::chain(seed, steps);
        for other in others {
            // The result keeps the compiler from leaving the work out.
            let _ = other.join().map(std::hint::black_box);
        }
        first
    });
    Ok(format!("done {first:016x}"))
}

/// The buffers stay, so that only the first command of a size pays for getting the memory.
fn memory((from, to): &mut (Vec<u8>, Vec<u8>), mib: &str, passes: &str) -> io::Result<String> {
    let size = number(mib, MOST_MIB)? * MIB;
    if from.len() != size {
        *from = vec![0x5a; size];
        *to = vec![0xa5; size];
    }
    for _ in 0..number(passes, 100_000)? {
        to.copy_from_slice(std::hint::black_box(from));
        std::hint::black_box(&mut *to);
    }
    Ok("done".to_owned())
}

fn write(path: &Path, mib: &str) -> io::Result<String> {
    let chunk: Vec<u8> = (0..MIB).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut file = File::create(path)?;
    for _ in 0..number(mib, MOST_MIB)? {
        file.write_all(&chunk)?;
    }
    file.sync_all()?;
    Ok("done".to_owned())
}

fn read(path: &Path, mib: &str) -> io::Result<String> {
    let mut left = number(mib, MOST_MIB)?;
    // O_DIRECT wants its buffer on a page boundary; a file system without it reads through the cache instead.
    let mut store = vec![0_u8; MIB + 4096];
    let at = store.as_ptr().align_offset(4096);
    let Some(buffer) = store.get_mut(at..at + MIB) else { return Err(io::Error::other("no aligned buffer")) };
    let mut file = OpenOptions::new().read(true).custom_flags(O_DIRECT).open(path).or_else(|_| File::open(path))?;
    while left > 0 {
        file.read_exact(buffer)?;
        left -= 1;
    }
    Ok("done".to_owned())
}

fn sink(input: &mut impl Read, bytes: &str) -> io::Result<String> {
    let bytes = number(bytes, MOST_MIB * MIB)? as u64;
    let taken = io::copy(&mut input.take(bytes), &mut io::sink())?;
    if taken == bytes { Ok("done".to_owned()) } else { Err(io::Error::other("the input ended early")) }
}

fn source(output: &mut impl Write, bytes: &str) -> io::Result<String> {
    let chunk = vec![0xa5_u8; 64 * 1024];
    let mut left = number(bytes, MOST_MIB * MIB)?;
    while left > 0 {
        let now = left.min(chunk.len());
        output.write_all(chunk.get(..now).unwrap_or_default())?;
        left -= now;
    }
    Ok("done".to_owned())
}
