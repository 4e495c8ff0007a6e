//! Files and their locks, the Windows side.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::fs::FileExt;
use std::os::windows::io::AsRawHandle;
use std::path::{Component, Path, Prefix};

use windows_sys::Win32::Foundation::{ERROR_LOCK_VIOLATION, HANDLE};
use windows_sys::Win32::Storage::FileSystem::{
    BY_HANDLE_FILE_INFORMATION, GetDriveTypeW, GetFileInformationByHandle, LOCKFILE_EXCLUSIVE_LOCK,
    LOCKFILE_FAIL_IMMEDIATELY, LockFileEx, UnlockFileEx,
};
use windows_sys::Win32::System::IO::OVERLAPPED;

use super::RawSocket;

/// What `GetDriveTypeW` says of a drive that another machine has.
const DRIVE_REMOTE: u32 = 4;

/// What tells one file from all others, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    volume: u32,
    number: u64,
}

impl Identity {
    /// That of the file which has this name now.
    pub(crate) fn of(path: &Path) -> io::Result<Identity> {
        let about = about(path)?;
        let number = u64::from(about.nFileIndexHigh) << 32 | u64::from(about.nFileIndexLow);
        Ok(Identity { volume: about.dwVolumeSerialNumber, number })
    }
}

fn about(path: &Path) -> io::Result<BY_HANDLE_FILE_INFORMATION> {
    let file = File::open(path)?;
    // SAFETY: all zeroes are a value of the type, which the call fills; the handle is a borrowed file's.
    let (asked, about) = unsafe {
        let mut about: BY_HANDLE_FILE_INFORMATION = std::mem::zeroed();
        (GetFileInformationByHandle(file.as_raw_handle() as HANDLE, &raw mut about), about)
    };
    if asked == 0 { Err(io::Error::last_os_error()) } else { Ok(about) }
}

/// How many names a file has.
pub(crate) fn names(path: &Path) -> io::Result<u64> {
    about(path).map(|about| u64::from(about.nNumberOfLinks))
}

/// Makes an empty file, with the rights that its folder hands on; an error when there is one.
pub(crate) fn make_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).open(path)
}

/// As [`make_private`].
pub(crate) fn make_like(path: &Path, _: &Metadata) -> io::Result<File> {
    make_private(path)
}

/// Opens a file that is there, to lock parts of it.
pub(crate) fn open_to_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// The system's number of a file, among those of sockets.
pub(crate) fn raw(file: &File) -> RawSocket {
    file.as_raw_handle() as RawSocket
}

/// The names in a folder are kept with the files here.
pub(crate) fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

/// The kind of share that a folder lies on, where it is one that other machines reach.
pub(crate) fn share(folder: &Path) -> io::Result<Option<&'static str>> {
    let Some(Component::Prefix(prefix)) = folder.components().next() else { return Ok(None) };
    let drive = match prefix.kind() {
        Prefix::UNC(..) | Prefix::VerbatimUNC(..) => return Ok(Some("a network")),
        Prefix::Disk(letter) | Prefix::VerbatimDisk(letter) => char::from(letter),
        _ => return Ok(None),
    };
    let root = format!("{drive}:\\\0");
    let root: Vec<u16> = std::ffi::OsStr::new(&root).encode_wide().collect();
    // SAFETY: the text ends with a NUL.
    let kind = unsafe { GetDriveTypeW(root.as_ptr()) };
    Ok((kind == DRIVE_REMOTE).then_some("a network"))
}

fn place(offset: u64) -> OVERLAPPED {
    // SAFETY: all zeroes are a value of the type.
    let mut place: OVERLAPPED = unsafe { std::mem::zeroed() };
    place.Anonymous.Anonymous.Offset = offset as u32;
    place.Anonymous.Anonymous.OffsetHigh = (offset >> 32) as u32;
    place
}

/// Locks a byte of a file until the file is closed, by whom or by what ever. `false` when another one has it.
pub(crate) fn lock(file: &File, offset: u64) -> io::Result<bool> {
    lock_so(file, offset, LOCKFILE_EXCLUSIVE_LOCK)
}

fn lock_so(file: &File, offset: u64, how: u32) -> io::Result<bool> {
    let mut place = place(offset);
    let how = how | LOCKFILE_FAIL_IMMEDIATELY;
    // SAFETY: the handle is a borrowed file's, and the structure lives as long as the call, which does not wait.
    if unsafe { LockFileEx(file.as_raw_handle() as HANDLE, how, 0, 1, 0, &raw mut place) } != 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(code) if code == ERROR_LOCK_VIOLATION as i32 => Ok(false),
        _ => Err(error),
    }
}

/// Whether another open file has the lock of a byte. Those who ask at once do not see each other.
pub(crate) fn is_locked(file: &File, offset: u64) -> io::Result<bool> {
    if !lock_so(file, offset, 0)? {
        return Ok(true);
    }
    let mut place = place(offset);
    // SAFETY: as above.
    unsafe { UnlockFileEx(file.as_raw_handle() as HANDLE, 0, 1, 0, &raw mut place) };
    Ok(false)
}

/// The number at the beginning of a file; 0 where there is none.
pub(crate) fn number(file: &File) -> io::Result<u64> {
    let mut bytes = [0; 8];
    let length = file.seek_read(&mut bytes, 0)?;
    Ok(if length == bytes.len() { u64::from_be_bytes(bytes) } else { 0 })
}

/// Writes it, and does not wait for the disk.
pub(crate) fn set_number(file: &File, number: u64) -> io::Result<()> {
    file.seek_write(&number.to_be_bytes(), 0).map(drop)
}

/// Runs work that is inside SQLite. Its locks are those of open files here.
pub(crate) fn with_sqlite<T>(work: impl FnOnce() -> T) -> T {
    work()
}
