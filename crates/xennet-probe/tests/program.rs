//! The guest's program, spoken to as the publisher does.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use xennet_probe::chain;

struct Program {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    folder: tempfile::TempDir,
}

impl Program {
    fn start() -> Program {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_xennet-probe"))
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Program { child, input, output, folder }
    }

    fn say(&mut self, bytes: &[u8]) {
        self.input.write_all(bytes).unwrap();
        self.input.flush().unwrap();
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn ask(&mut self, command: &str) -> String {
        self.say(format!("{command}\n").as_bytes());
        self.answer()
    }
}

#[test]
fn each_command_is_obeyed_and_answered_with_one_line() {
    let mut program = Program::start();
    assert_eq!(program.ask("ping"), "pong");
    assert_eq!(program.ask("cpu 3 7 1000"), format!("done {:016x}", chain(7, 1000)));
    assert_eq!(program.ask("memory 1 3"), "done");
    assert_eq!(program.ask("write 2"), "done");
    assert_eq!(std::fs::metadata(program.folder.path().join("xennet-probe.data")).unwrap().len(), 2 << 20);
    assert_eq!(program.ask("read 2"), "done");
    assert_eq!(program.ask("quit"), "");
    assert!(program.child.wait().unwrap().success());
    assert_eq!(std::fs::read_dir(program.folder.path()).unwrap().count(), 0, "the file it wrote is still there");
}

#[test]
fn raw_bytes_go_both_ways_between_the_lines() {
    let mut program = Program::start();
    // A newline among the raw bytes is no command.
    let bytes = b"quit\n".repeat(20_000);
    program.say(format!("sink {}\n", bytes.len()).as_bytes());
    program.say(&bytes);
    assert_eq!(program.answer(), "done");
    program.say(b"source 100000\n");
    let mut taken = vec![0; 100_000];
    program.output.read_exact(&mut taken).unwrap();
    assert_eq!(program.answer(), "done");
    assert_eq!(program.ask("ping"), "pong");
}

#[test]
fn what_it_cannot_do_it_answers_with_an_error_and_goes_on() {
    let mut program = Program::start();
    for command in ["", "dance", "memory 1025 1", "write -1", "write x", "cpu 1 2", "read 1", "sink 99999999999"] {
        let answer = program.ask(command);
        assert!(answer.starts_with("error "), "{command:?} was answered {answer:?}");
    }
    assert_eq!(program.ask("ping"), "pong");
}
