//! The file: what it must be, and one connection of SQLite to it.
//!
//! Nothing here waits for another program: who finds the file locked says so, and tries again from outside, where
//! neither a fork nor another call waits for it.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi, params};

use super::digest::KEY_LENGTH;
use super::life;
use super::rows::{self, Rows};
use crate::sys::files::{self, Identity};

/// What the header of an SQLite file says whose it is: "arct".
const APPLICATION: u32 = 0x6172_6374;
/// The statements that lead from one version of the file to the next, from nothing on.
const MIGRATIONS: [&str; 1] = [rows::VERSION_1];
/// The version of this library's files.
const VERSION: u32 = MIGRATIONS.len() as u32;

/// What stands in the way of the file.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub kind: Kind,
    /// What is wrong with the file, to stand behind its path.
    why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Another program is inside: it is asked again soon.
    Busy,
    /// The system does not write it, for want of room or by a fault of the disk. What can be read stays good; were the
    /// file opened anew, what was refused might be found in the log.
    Unwritten,
    /// It may pass when somebody does something about it.
    Passing,
    /// What is asked cannot be done; the file is as it should be.
    Final,
    /// The file is not what it should be, or not what it was: what it says now may be less than what was known.
    Lasting,
}

impl Trouble {
    pub(super) fn damaged(what: &str) -> Trouble {
        Trouble::lasting(format!("is damaged, and left as it is: {what}"))
    }

    /// The system refuses something of the file.
    pub(super) fn of_system(what: &str, error: &io::Error) -> Trouble {
        Trouble { kind: Kind::Passing, why: format!("cannot be used: {what}: {error}") }
    }

    pub(super) fn of_work(why: &str) -> Trouble {
        Trouble { kind: Kind::Final, why: why.to_owned() }
    }

    pub(super) fn passing(why: &str) -> Trouble {
        Trouble { kind: Kind::Passing, why: why.to_owned() }
    }

    fn lasting(why: impl Into<String>) -> Trouble {
        Trouble { kind: Kind::Lasting, why: why.into() }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.why)
    }
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Trouble {
        // SQLite's own words name tables and columns, and never what stands in them.
        let rusqlite::Error::SqliteFailure(code, ref words) = error else {
            return Trouble::damaged(&error.to_string());
        };
        match (code.code, code.extended_code) {
            (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed, _) => {
                Trouble { kind: Kind::Busy, why: "is locked by another program".to_owned() }
            }
            (ErrorCode::DiskFull, _) => {
                Trouble { kind: Kind::Unwritten, why: "cannot be written: the disk is full".to_owned() }
            }
            (ErrorCode::SystemIoFailure, ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_FSYNC) => {
                let why = "cannot be written: the system refuses it, for want of room or by a fault of the disk";
                Trouble { kind: Kind::Unwritten, why: why.to_owned() }
            }
            (ErrorCode::ReadOnly, _) => Trouble::passing("may not be written"),
            (ErrorCode::PermissionDenied | ErrorCode::CannotOpen, _) => Trouble::passing("cannot be opened"),
            (ErrorCode::OutOfMemory, _) => Trouble::passing("cannot be used: there is no memory for it"),
            (ErrorCode::SystemIoFailure, extended) => Trouble::passing(&format!(
                "cannot be used: the system refuses it, for want of room or by a fault of the disk (SQLite {extended})"
            )),
            (ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ConstraintViolation, _) => {
                Trouble::damaged(words.as_deref().unwrap_or(&code.to_string()))
            }
            _ => Trouble::passing(&format!("cannot be used: {}", words.as_deref().unwrap_or(&code.to_string()))),
        }
    }
}

/// The path of what stands beside the file and has its name with an ending.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// A file that may be a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Without symbolic links.
    pub path: PathBuf,
    identity: Identity,
}

impl Place {
    /// Looks whether a path may be a journal, and makes an empty file where there is none.
    pub(super) fn prepare(given: &Path) -> Result<Place, Trouble> {
        let path = match given.canonicalize() {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(given)?,
            Err(error) => return Err(Trouble::of_system("its path", &error)),
        };
        let folder = path.parent().ok_or_else(|| Trouble::lasting("names no file"))?;
        refuse_share(folder)?;
        let about = path.metadata().map_err(|error| Trouble::of_system("the file", &error))?;
        if !about.is_file() {
            return Err(Trouble::lasting("is no file"));
        }
        if files::names(&path).map_err(|error| Trouble::of_system("the file", &error))? > 1 {
            return Err(Trouble::lasting(
                "has several names (hard links), of which each would have a journal of its own",
            ));
        }
        let identity = Identity::of(&path).map_err(|error| Trouble::of_system("the file", &error))?;
        check_header(&path)?;
        life::prepare(&path, &about).map_err(|error| Trouble::of_system("its signs of life", &error))?;
        Ok(Place { path, identity })
    }

    /// Whether the file is still the one that has its name.
    fn check(&self) -> Result<(), Trouble> {
        match Identity::of(&self.path) {
            Ok(identity) if identity == self.identity => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Trouble::of_system("a file of it", &error)),
            _ => {
                let name = self.path.file_name().unwrap_or_default().display();
                let why = format!("cannot be used: {name} was removed or replaced while it is in use");
                Err(Trouble::lasting(why))
            }
        }
    }
}

/// Makes the file that is not there.
fn make(given: &Path) -> Result<PathBuf, Trouble> {
    if given.symlink_metadata().is_ok() {
        return Err(Trouble::lasting("is a symbolic link to nothing"));
    }
    let name = given.file_name().ok_or_else(|| Trouble::lasting("names no file"))?;
    let folder = match given.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let folder = folder.canonicalize().map_err(|error| Trouble::of_system("its folder", &error))?;
    refuse_share(&folder)?;
    let path = folder.join(name);
    match files::make_private(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(Trouble::of_system("it cannot be made", &error))
        }
        _ => match files::sync_folder(&folder) {
            Ok(()) => Ok(path),
            Err(error) => Err(Trouble::of_system("its folder", &error)),
        },
    }
}

/// SQLite's log is shared by memory, which ends where the machine does.
fn refuse_share(folder: &Path) -> Result<(), Trouble> {
    match files::share(folder) {
        Ok(None) => Ok(()),
        Ok(Some(kind)) => Err(Trouble::lasting(format!(
            "lies on a network share ({kind}), where two machines would not see what the other one writes; it must be on a disk of this machine"
        ))),
        Err(error) => Err(Trouble::of_system("its folder", &error)),
    }
}

/// What a file says of itself, before SQLite touches it.
fn check_header(path: &Path) -> Result<(), Trouble> {
    const MAGIC: &[u8] = b"SQLite format 3\0";
    let trouble = |error: io::Error| Trouble::of_system("the file", &error);
    let mut header = Vec::new();
    File::open(path).map_err(trouble)?.take(100).read_to_end(&mut header).map_err(trouble)?;
    let number = |at: usize| header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
    match (number(68), number(60)) {
        _ if header.is_empty() || is_being_made(path) => Ok(()),
        (Some(application), Some(version)) if header.starts_with(MAGIC) => check_maker(application, version),
        _ => Err(Trouble::lasting("is no journal, and left as it is")),
    }
}

/// Whether the machine stopped while the file was first made: what of it is there, SQLite takes back when it opens it.
fn is_being_made(path: &Path) -> bool {
    // The beginning of its journal of what to take back: a mark, two numbers, and how many pages the file had.
    const MARK: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    let mut start = [0; 20];
    let read = File::open(beside(path, "-journal")).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start[..8] == MARK && start[16..] == [0; 4]
}

fn check_maker(application: u32, version: u32) -> Result<(), Trouble> {
    if application != APPLICATION {
        return Err(Trouble::lasting("is an SQLite file of another program, and left as it is"));
    }
    if version > VERSION {
        return Err(Trouble::lasting(format!(
            "was written by a newer version of the library: it has format {version}, and this one knows {VERSION}"
        )));
    }
    Ok(())
}

/// The connection to the file.
pub(super) struct Store {
    /// There until it is dropped.
    connection: Option<Connection>,
    place: Place,
    /// SQLite's log and its index, and the signs of life.
    beside: Vec<Place>,
    /// The key of the file.
    pub key: [u8; KEY_LENGTH],
    /// The file that says how often this one was written: never more than it was, so that one that says less has lost
    /// something.
    turns: File,
}

impl Store {
    /// Opens the file; an empty one becomes a journal, one of an older version becomes one of this version.
    pub(super) fn open(place: &Place) -> Result<Store, Trouble> {
        place.check()?;
        let flags =
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let turns = life::turns(&place.path).map_err(|error| Trouble::of_system("its signs of life", &error))?;
        let connection = files::with_sqlite(|| Connection::open_with_flags(sqlite_path(&place.path), flags))?;
        let (connection, place, key) = (Some(connection), place.clone(), [0; KEY_LENGTH]);
        let mut store = Store { connection, place, beside: Vec::new(), key, turns };
        files::with_sqlite(|| store.set_up())?;
        // The log is there from the first reading on.
        let key = || store.connection().query_row("SELECT key FROM file", [], |row| row.get(0));
        store.key = files::with_sqlite(key)?;
        for ending in ["-wal", "-shm", "-alive"] {
            let path = beside(&store.place.path, ending);
            let identity = Identity::of(&path).map_err(|error| Trouble::of_system("what is beside it", &error))?;
            store.beside.push(Place { path, identity });
        }
        store.read(|_| Ok(()))?;
        Ok(store)
    }

    fn set_up(&self) -> Result<(), Trouble> {
        let connection = self.connection();
        // SQLite opens for reading alone what may not be written.
        if connection.is_readonly("main")? {
            return Err(Trouble::passing("may not be written"));
        }
        connection.busy_timeout(Duration::ZERO)?;
        // Who closes last would take the log away from under a host's own SQLite, and under a copy of this library.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        connection.pragma_update(None, "secure_delete", true)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        // As FULL in a log; before there is one, the end of a transaction is on the disk too.
        let synchronous = if cfg!(feature = "planted-no-sync") { "OFF" } else { "EXTRA" };
        connection.pragma_update(None, "synchronous", synchronous)?;
        if self.version()? < VERSION {
            self.migrate()?;
        }
        let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            return Err(Trouble::lasting("cannot be used: its file system does not let processes share memory"));
        }
        Ok(())
    }

    /// The version of the file, 0 of an empty one.
    fn version(&self) -> Result<u32, Trouble> {
        let connection = self.connection();
        let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, u32>(0));
        let (application, version) = (number("application_id")?, number("user_version")?);
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if (application, version, tables) != (0, 0, 0) {
            check_maker(application, version)?;
        }
        Ok(version)
    }

    /// Leads the file to this version, in one transaction.
    fn migrate(&self) -> Result<(), Trouble> {
        self.within(|| {
            let connection = self.connection();
            // Another process may have done it meanwhile.
            let version = self.version()?;
            for statements in MIGRATIONS.iter().skip(version as usize) {
                connection.execute_batch(statements)?;
            }
            if version == 0 {
                Store::turn_after(self.known()?, 0)?;
                let mut key = [0_u8; KEY_LENGTH];
                getrandom::fill(&mut key)
                    .map_err(|error| Trouble::of_system("random numbers", &io::Error::other(error)))?;
                connection.execute("INSERT INTO file (key, turn) VALUES (?1, 0)", params![key])?;
                connection.pragma_update(None, "application_id", APPLICATION)?;
            }
            connection.pragma_update(None, "user_version", VERSION)?;
            Ok(())
        })
    }

    /// Runs work in one transaction that may write, and commits it; all is undone where anything fails.
    pub(super) fn write<T>(&self, work: impl FnOnce(&Rows) -> Result<T, Trouble>) -> Result<T, Trouble> {
        let known = self.check()?;
        let (done, turn) = files::with_sqlite(|| {
            self.within(|| {
                let (rows, turn) = self.rows_of(known)?;
                let changes = self.connection().total_changes();
                let done = work(&rows)?;
                if self.connection().total_changes() == changes {
                    return Ok((done, None));
                }
                rows.set_turn(turn + 1)?;
                Ok((done, Some(turn + 1)))
            })
        })?;
        // It is on the disk by now. Where this is not written, less is known, and nothing wrong.
        let _ = turn.map(|turn| files::set_number(&self.turns, turn));
        Ok(done)
    }

    /// Runs work that only reads, also while another program writes.
    pub(super) fn read<T>(&self, work: impl FnOnce(&Rows) -> Result<T, Trouble>) -> Result<T, Trouble> {
        let known = self.check()?;
        files::with_sqlite(|| work(&self.rows_of(known)?.0))
    }

    /// Whether all is still in its place: what is written into a file that has lost its name is seen by nobody else. How
    /// often the file was written, as far as is known.
    fn check(&self) -> Result<u64, Trouble> {
        std::iter::once(&self.place).chain(&self.beside).try_for_each(Place::check)?;
        self.known()
    }

    fn known(&self) -> Result<u64, Trouble> {
        files::number(&self.turns).map_err(|error| Trouble::of_system("its signs of life", &error))
    }

    /// The rows, and how often they were written, unless some were lost.
    fn rows_of(&self, known: u64) -> Result<(Rows<'_>, u64), Trouble> {
        let rows = Rows { connection: self.connection(), path: &self.place.path };
        let turn = rows.turn()?;
        Store::turn_after(known, turn)?;
        Ok((rows, turn))
    }

    fn turn_after(known: u64, turn: u64) -> Result<(), Trouble> {
        if turn >= known {
            return Ok(());
        }
        Err(Trouble::lasting(format!(
            "was written {known} times and knows of {turn}: it is an older copy, or has lost its log; where that is meant, remove the file beside it that ends in -alive while no program uses it"
        )))
    }

    fn within<T>(&self, work: impl FnOnce() -> Result<T, Trouble>) -> Result<T, Trouble> {
        let connection = self.connection();
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let done = work().and_then(|done| {
            connection.execute_batch("COMMIT")?;
            Ok(done)
        });
        if done.is_err() && !connection.is_autocommit() {
            // Where this fails too, the connection is closed, which undoes it.
            let _ = connection.execute_batch("ROLLBACK");
        }
        done
    }

    fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("a store has its connection until it is dropped")
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        files::with_sqlite(|| drop(self.connection.take()));
    }
}

/// The path as SQLite takes it: Windows' long form is none to it.
fn sqlite_path(path: &Path) -> PathBuf {
    match path.to_str().and_then(|text| text.strip_prefix(r"\\?\")) {
        Some(plain) if cfg!(windows) => PathBuf::from(plain),
        _ => path.to_owned(),
    }
}
