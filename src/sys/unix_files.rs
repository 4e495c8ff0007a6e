//! Files and their locks, the Unix side.

use std::ffi::CString;
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::RawSocket;

/// What tells one file from all others, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    number: u64,
}

impl Identity {
    /// That of the file which has this name now.
    pub(crate) fn of(path: &Path) -> io::Result<Identity> {
        std::fs::metadata(path).map(|metadata| Identity { device: metadata.dev(), number: metadata.ino() })
    }
}

/// How many names a file has.
pub(crate) fn names(path: &Path) -> io::Result<u64> {
    std::fs::metadata(path).map(|metadata| metadata.nlink())
}

/// Makes an empty file that nobody else may read; an error when there is one.
pub(crate) fn make_private(path: &Path) -> io::Result<File> {
    options().create_new(true).mode(0o600).open(path)
}

/// Makes an empty file that those may use who may use another one; an error when there is one.
pub(crate) fn make_like(path: &Path, other: &Metadata) -> io::Result<File> {
    let file = make_private(path)?;
    // Past the process's mask.
    file.set_permissions(Permissions::from_mode(other.mode() & 0o666))?;
    Ok(file)
}

/// Opens a file that is there, to lock parts of it.
pub(crate) fn open_to_lock(path: &Path) -> io::Result<File> {
    options().open(path)
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NOCTTY | libc::O_NONBLOCK);
    options
}

/// The system's number of a file, among those of sockets.
pub(crate) fn raw(file: &File) -> RawSocket {
    file.as_raw_fd()
}

/// Has the disk keep the names in a folder.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The kind of share that a folder lies on, where it is one that other machines reach.
pub(crate) fn share(folder: &Path) -> io::Result<Option<&'static str>> {
    let path = CString::new(folder.as_os_str().as_bytes())?;
    // SAFETY: all zeroes are a value of the type, which the call fills; the path is a C string.
    let (asked, about) = unsafe {
        let mut about: libc::statfs = std::mem::zeroed();
        (libc::statfs(path.as_ptr(), &raw mut about), about)
    };
    if asked != 0 {
        return Err(io::Error::last_os_error());
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let kind = match about.f_type as u32 {
        0x6969 => Some("NFS"),
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => Some("SMB"),
        0x0102_1997 => Some("9P"),
        0x5346_414f | 0x6b41_4653 => Some("AFS"),
        0x7375_7245 => Some("Coda"),
        0x564c => Some("NCP"),
        0x00c3_6400 => Some("Ceph"),
        0x0bd0_0bd0 => Some("Lustre"),
        0x4750_4653 => Some("GPFS"),
        0x0116_1970 => Some("GFS2"),
        0x7461_636f => Some("OCFS2"),
        _ => None,
    };
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let kind = (about.f_flags as u64 & libc::MNT_LOCAL as u64 == 0).then_some("a network");
    Ok(kind)
}

fn byte(offset: u64) -> libc::flock {
    // SAFETY: all zeroes are a value of the type.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = offset as libc::off_t;
    lock.l_len = 1;
    lock
}

/// Locks a byte of a file until the file is closed, by whom or by what ever. The lock is the open file's, not the
/// process's. `false` when another one has it.
pub(crate) fn lock(file: &File, offset: u64) -> io::Result<bool> {
    let mut lock = byte(offset);
    // SAFETY: the descriptor is a borrowed file's, and the structure lives as long as the call.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// Whether another open file has the lock of a byte.
pub(crate) fn is_locked(file: &File, offset: u64) -> io::Result<bool> {
    let mut lock = byte(offset);
    // SAFETY: as above.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(libc::c_int::from(lock.l_type) != libc::F_UNLCK)
}

/// The number at the beginning of a file; 0 where there is none.
pub(crate) fn number(file: &File) -> io::Result<u64> {
    let mut bytes = [0; 8];
    let length = file.read_at(&mut bytes, 0)?;
    Ok(if length == bytes.len() { u64::from_be_bytes(bytes) } else { 0 })
}

/// Writes it, and does not wait for the disk.
pub(crate) fn set_number(file: &File, number: u64) -> io::Result<()> {
    file.write_at(&number.to_be_bytes(), 0).map(drop)
}

/// Runs work that is inside SQLite, whose locks on files are those of open files meanwhile.
///
/// SQLite asks for locks that belong to the process: another copy of it in the process would not be kept out by them,
/// and would drop them when it closes the file. Where a host links the same copy, its own use of it stays as it is.
pub(crate) fn with_sqlite<T>(work: impl FnOnce() -> T) -> T {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        own_locks::ready();
        let outer = own_locks::INSIDE.replace(true);
        let done = work();
        own_locks::INSIDE.set(outer);
        done
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    work()
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod own_locks {
    use std::cell::Cell;
    use std::ffi::c_int;
    use std::sync::Once;

    use rusqlite::ffi;

    thread_local! {
        /// Whether this thread is inside SQLite on behalf of the library.
        pub(super) static INSIDE: Cell<bool> = const { Cell::new(false) };
    }

    /// Puts [`fcntl`] in the place of the one that SQLite calls.
    pub(super) fn ready() {
        static READY: Once = Once::new();
        READY.call_once(|| {
            // SAFETY: the name is a C string, and the VFS that is found lives as long as the process. A function of
            // three arguments is called through the type of a variadic one: on the processors of these systems the
            // third is passed in the same register.
            unsafe {
                if ffi::sqlite3_initialize() != ffi::SQLITE_OK {
                    return;
                }
                let vfs = ffi::sqlite3_vfs_find(c"unix".as_ptr());
                if let Some(set) = vfs.as_ref().and_then(|vfs| vfs.xSetSystemCall) {
                    let own: unsafe extern "C" fn(c_int, c_int, usize) -> c_int = fcntl;
                    let own = std::mem::transmute::<
                        unsafe extern "C" fn(c_int, c_int, usize) -> c_int,
                        unsafe extern "C" fn(),
                    >(own);
                    set(vfs, c"fcntl".as_ptr(), Some(own));
                }
            }
        });
    }

    /// SQLite's calls of `fcntl`: those for locks of the process become such for locks of the open file.
    ///
    /// # Safety
    /// As of `fcntl`: for the commands of locks the argument is the address of a `flock`.
    unsafe extern "C" fn fcntl(descriptor: c_int, command: c_int, argument: usize) -> c_int {
        let own = match command {
            libc::F_SETLK => libc::F_OFD_SETLK,
            libc::F_SETLKW => libc::F_OFD_SETLKW,
            libc::F_GETLK => libc::F_OFD_GETLK,
            _ => command,
        };
        // SAFETY: the caller's promise.
        unsafe {
            if own == command || !INSIDE.get() {
                return libc::fcntl(descriptor, command, argument);
            }
            let lock = argument as *mut libc::flock;
            (*lock).l_pid = 0;
            libc::fcntl(descriptor, own, lock)
        }
    }
}
