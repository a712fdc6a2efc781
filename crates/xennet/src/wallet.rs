//! `xennet wallet`: make, bring back, encrypt and copy a wallet; see what it holds and did.

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;

use serde_json::json;
use xennetd::backup::{self, BackupError, BackupView, Existing};
use xennetd::config::{Config, network_name, noted_role};
use xennetd::control::{Command, Reply, Role};
use xennetd::wallet::{self, Birthday, Kept, Passphrase, PassphraseError, Wallet, Words};

use crate::cli::{CreateArgs, RestoreArgs, WalletOrder, WordCount};
use crate::commands::Context;
use crate::fail::Fail;
use crate::resolve::strange;
use crate::show;

/// Words that are asked for again.
const ASKED: usize = 3;
/// Answers that may be wrong before that ends.
const MAY_BE_WRONG: usize = 3;

impl Context {
    pub(crate) async fn wallet(&self, order: WalletOrder) -> Result<(), Fail> {
        match order {
            WalletOrder::Balance => match self.ask(Command::WalletBalance {}).await? {
                Reply::Balance(balance) => show::print(self.json, &balance, show::balance),
                other => Err(strange(&other)),
            },
            WalletOrder::Address => match self.ask(Command::WalletAddress {}).await? {
                Reply::Address(address) => show::print(self.json, &address, |a| format!("{}\n", a.address)),
                other => Err(strange(&other)),
            },
            WalletOrder::History => match self.ask(Command::WalletHistory {}).await? {
                Reply::History(history) => show::print(self.json, &history, |history| show::history(history)),
                other => Err(strange(&other)),
            },
            WalletOrder::Coins => match self.ask(Command::WalletCoins {}).await? {
                Reply::Coins(coins) => show::print(self.json, &coins, |coins| show::coins(coins)),
                other => Err(strange(&other)),
            },
            WalletOrder::Send(args) => self.send(&args).await,
            WalletOrder::Sweep(args) => self.sweep(&args).await,
            WalletOrder::Bump(args) => self.bump(&args).await,
            WalletOrder::Create(args) => self.create(&args),
            WalletOrder::Restore(args) => self.restore(&args).await,
            WalletOrder::Encrypt { new_passphrase_file } => self.encrypt(new_passphrase_file.as_deref()),
            WalletOrder::Backup { file, overwrite } => self.backup(&file, overwrite).await,
        }
    }

    /// As the daemon of this data directory would be set up.
    fn config(&self) -> Result<Config, Fail> {
        let role = noted_role(&self.data_dir)?.unwrap_or(Role::Publisher);
        Ok(Config::load(&self.settings, role)?)
    }

    fn create(&self, args: &CreateArgs) -> Result<(), Fail> {
        let config = self.config()?;
        none_yet(&config)?;
        let passphrase = self.new_passphrase(&config, args.no_passphrase)?;
        let words = match args.words {
            WordCount::Twelve => Words::random(),
            WordCount::TwentyFour => Words::random_24(),
        };
        let list = words.list();
        if self.json || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            wallet::create(&config, words.clone(), Birthday::Now, passphrase.as_ref()).map_err(failed)?;
            let view = json!({
                "data_dir": config.data_dir.display().to_string(),
                "network": network_name(config.chain.network()),
                "encrypted": passphrase.is_some(),
                "words": list,
            });
            return show::print(self.json, &view, |_| numbered(&list));
        }
        eprintln!("These words are the wallet. They are shown this once: write them down, in this order.\n\n{}", numbered(&list));
        check_written_down(&list)?;
        wallet::create(&config, words, Birthday::Now, passphrase.as_ref()).map_err(failed)?;
        self.made(&config, passphrase.is_some())
    }

    async fn restore(&self, args: &RestoreArgs) -> Result<(), Fail> {
        if let Some(file) = &args.from
            && backup::is_whole(file).map_err(not_backed_up)?
        {
            return self.restore_whole(file).await;
        }
        let config = self.config()?;
        none_yet(&config)?;
        if let Some(backup) = &args.from {
            let passphrase = given_passphrase(&config, "passphrase of the backup: ")?;
            wallet::restore_backup(&config, backup, &passphrase).map_err(failed)?;
            return self.made(&config, true);
        }
        let words = wallet::ask_words("the 12 to 24 words, with spaces between them: ").map_err(|why| Fail::new(format!("{why:#}")))?;
        let passphrase = self.new_passphrase(&config, args.no_passphrase)?;
        wallet::create(&config, words, Birthday::Height(args.birthday_height), passphrase.as_ref()).map_err(failed)?;
        self.made(&config, passphrase.is_some())
    }

    /// The backup brings its own configuration. Only one that is named has a say beside it.
    async fn restore_whole(&self, file: &Path) -> Result<(), Fail> {
        let config = self.config()?;
        let wanted = self.settings.config.is_some().then(|| config.chain.network());
        let passphrase = given_passphrase(&config, "passphrase of the backup: ")?;
        let restored = backup::restore(&config.data_dir, wanted, file, &passphrase).await.map_err(not_backed_up)?;
        show::print(self.json, &restored, |restored| {
            let backup::Restored { data_dir, network, tasks, leases, unsettled } = restored;
            let waits = match unsettled {
                0 => String::new(),
                some => format!(
                    "{some} of the leases are not over: they sign nothing before the other side has said what was signed since the \
                     backup. Start the daemon soon\n"
                ),
            };
            format!("{data_dir} holds the wallet for {}, keys, {tasks} tasks and {leases} leases again\n{waits}", network_name(*network))
        })
    }

    fn encrypt(&self, new_file: Option<&Path>) -> Result<(), Fail> {
        let config = self.config()?;
        let current = match Wallet::kept(&config.data_dir) {
            Kept::Encrypted => Some(given_passphrase(&config, "current passphrase: ")?),
            _ => None,
        };
        let new = match new_file {
            Some(path) => Passphrase::read(path).map_err(wrong_passphrase)?,
            None => typed_twice("new passphrase: ")?,
        };
        wallet::encrypt(&config, current.as_ref(), &new).map_err(failed)?;
        self.made(&config, true)
    }

    /// A daemon that runs has the wallet open and needs no passphrase.
    async fn backup(&self, file: &Path, overwrite: bool) -> Result<(), Fail> {
        let view = if self.client.is_there().await {
            let file = std::path::absolute(file).map_err(|why| Fail::new("the file has no absolute name").because(why))?;
            match self.ask(Command::WalletBackup { file, overwrite }).await? {
                Reply::Backup(view) => view,
                other => return Err(strange(&other)),
            }
        } else {
            let config = self.config()?;
            // What is wrong with the wallet comes before the question for its passphrase.
            Wallet::backup(&config.data_dir).map_err(failed)?;
            let existing = if overwrite { Existing::Replaced } else { Existing::Stays };
            let passphrase = given_passphrase(&config, "passphrase of the wallet: ")?;
            backup::write_alone(&config, &passphrase, file, existing).await.map_err(not_backed_up)?
        };
        show::print(self.json, &view, |view| {
            let BackupView { file, bytes, tasks, leases } = view;
            format!(
                "{file} holds seed, keys, {tasks} tasks and {leases} leases, encrypted with the wallet's passphrase, {bytes} bytes. What is \
                 paid from now on is not in it\n"
            )
        })
    }

    /// The passphrase of a new wallet: out of the file that is named, or typed twice.
    fn new_passphrase(&self, config: &Config, none: bool) -> Result<Option<Passphrase>, Fail> {
        match &config.wallet.passphrase_file {
            _ if none => Ok(None),
            Some(path) => Passphrase::read(path).map(Some).map_err(wrong_passphrase),
            None => typed_twice("passphrase of the new wallet: ").map(Some),
        }
    }

    fn made(&self, config: &Config, encrypted: bool) -> Result<(), Fail> {
        let view = json!({
            "data_dir": config.data_dir.display().to_string(),
            "network": network_name(config.chain.network()),
            "encrypted": encrypted,
        });
        show::print(self.json, &view, |_| {
            let how = if encrypted { "encrypted" } else { "not encrypted" };
            format!("the wallet in {} is for {}, {how}\n", config.data_dir.display(), network_name(config.chain.network()))
        })
    }
}

fn none_yet(config: &Config) -> Result<(), Fail> {
    match Wallet::kept(&config.data_dir) {
        Kept::Nothing => Ok(()),
        _ => {
            Err(Fail::new(format!("there is a wallet in {} already, and it stays", config.data_dir.display()))
                .next("choose another --datadir"))
        }
    }
}

fn given_passphrase(config: &Config, question: &str) -> Result<Passphrase, Fail> {
    let given = wallet::passphrase_of(config, question).map_err(|why| Fail::new(format!("{why:#}")))?;
    given.ok_or_else(nobody_is_there)
}

fn typed_twice(question: &str) -> Result<Passphrase, Fail> {
    let ask = |question: &str| wallet::ask(question).map_err(|why| Fail::new(format!("{why:#}")))?.ok_or_else(nobody_is_there);
    let first = ask(question)?;
    first.check_new().map_err(wrong_passphrase)?;
    if !first.is(&ask("once more: ")?) {
        return Err(Fail::new("the two are not the same").next("nothing was made or changed; begin again"));
    }
    Ok(first)
}

fn nobody_is_there() -> Fail {
    Fail::new("a passphrase is needed, and there is no terminal to ask for it")
        .next("name a file that holds it with XENNET_PASSPHRASE_FILE, or give --no-passphrase where that is offered")
}

fn wrong_passphrase(why: PassphraseError) -> Fail {
    Fail::new(why.to_string())
}

fn failed(why: wallet::WalletError) -> Fail {
    Fail::new(why.to_string())
}

fn not_backed_up(why: BackupError) -> Fail {
    match std::error::Error::source(&why) {
        Some(cause) => Fail::new(why.to_string()).because(cause),
        None => Fail::new(why.to_string()),
    }
}

/// Four to a line, each with its number.
fn numbered(words: &[&str]) -> String {
    let lines = words.chunks(4).zip(0..).map(|(line, row)| {
        let cells = line.iter().zip(1..).map(|(word, column)| format!("{:>2}. {word:<10}", row * 4 + column));
        format!("  {}\n", cells.collect::<String>().trim_end())
    });
    lines.collect()
}

/// Asks for some of the words again, so that they are on paper before there is a wallet of them.
fn check_written_down(words: &[&str]) -> Result<(), Fail> {
    let mut wrong = 0;
    for at in wallet::places_to_ask(words.len(), ASKED) {
        let word = words.get(at).copied().unwrap_or_default();
        loop {
            eprint!("word {}: ", at + 1);
            let _ = std::io::stderr().flush();
            let mut typed = String::new();
            if std::io::stdin().lock().read_line(&mut typed).unwrap_or(0) == 0 {
                return Err(Fail::new("the words were not asked to the end").next("no wallet was made; begin again, with other words"));
            }
            if typed.trim().to_lowercase() == word {
                break;
            }
            wrong += 1;
            if wrong > MAY_BE_WRONG {
                let text = format!("{wrong} answers were wrong, and at most {MAY_BE_WRONG} may be");
                return Err(Fail::new(text).next("no wallet was made; begin again, with other words, and write them down"));
            }
            eprintln!("that is not word {}: look at the paper ({} wrong, at most {MAY_BE_WRONG} may be)", at + 1, wrong);
        }
    }
    Ok(())
}
