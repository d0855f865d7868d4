//! The system calls of the default profile, by subject.

/// Allowed to everybody. Names of other architectures do no harm where they do not exist.
pub(super) const ALLOWED: [&str; 19] = [
    // Files by descriptor.
    "close close_range copy_file_range dup dup2 dup3 fadvise64 fadvise64_64 fallocate fcntl fcntl64 fdatasync flock fsync \
     ftruncate ftruncate64 ioctl _llseek lseek pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readv \
     sendfile sendfile64 splice sync sync_file_range syncfs tee vmsplice write writev cachestat",
    // Files by name, directories, links.
    "access chdir creat faccessat faccessat2 fchdir getcwd getdents getdents64 link linkat mkdir mkdirat mknod mknodat \
     name_to_handle_at open openat openat2 readlink readlinkat rename renameat renameat2 rmdir symlink symlinkat truncate \
     truncate64 umask unlink unlinkat",
    // What a file is, who owns it, its times.
    "chmod chown chown32 fchmod fchmodat fchmodat2 fchown fchown32 fchownat fstat fstat64 fstatat64 fstatfs fstatfs64 \
     futimesat lchown lchown32 lstat lstat64 newfstatat stat stat64 statfs statfs64 statx utime utimensat utimensat_time64 \
     utimes file_getattr file_setattr",
    // Extended attributes.
    "fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat llistxattr lremovexattr \
     lsetxattr removexattr removexattrat setxattr setxattrat",
    // Looking at mounts (not making them).
    "listmount statmount",
    // Waiting for events.
    "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 \
     fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch _newselect poll ppoll ppoll_time64 \
     pselect6 pselect6_time64 select signalfd signalfd4",
    // Asynchronous I/O of the old kind.
    "io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioprio_get ioprio_set",
    // Memory.
    "brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 mprotect \
     mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages",
    // Processes and threads; clone has rules of its own.
    "execve execveat exit exit_group fork getpgid getpgrp getpid getppid getsid gettid kill pause pidfd_open \
     pidfd_send_signal process_mrelease restart_syscall set_thread_area get_thread_area set_tid_address setpgid setsid \
     tgkill tkill vfork wait4 waitid waitpid prctl rseq uretprobe uprobe riscv_hwprobe",
    // Users, groups, capabilities.
    "capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32 getresuid \
     getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setregid \
     setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setuid setuid32",
    // Limits and priorities.
    "getcpu getpriority getrlimit getrusage prlimit64 setpriority setrlimit ugetrlimit sysinfo times uname",
    // The scheduler.
    "sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler \
     sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler \
     sched_yield",
    // Signals.
    "rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait \
     rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn",
    // Locks between threads.
    "futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list set_robust_list",
    // Time; setting the clock needs CAP_SYS_TIME, and adjtimex checks by itself.
    "adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
     clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create timer_delete \
     timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime \
     timerfd_gettime64 timerfd_settime timerfd_settime64",
    // Sockets; making one has rules of its own.
    "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 recvmsg \
     send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair",
    // Pipes, System V and POSIX message passing.
    "ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink \
     msgctl msgget msgrcv msgsnd pipe pipe2 semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget",
    // Giving up rights.
    "landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp",
    // Random numbers.
    "getrandom",
];

/// Allowed together with a capability.
pub(super) const BY_CAPABILITY: [(&str, &str); 14] = [
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules \
         lsm_set_self_attr mount mount_setattr move_mount open_tree open_tree_attr perf_event_open quotactl quotactl_fd \
         setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// Address families below this one are all allowed, from AF_UNSPEC to AF_ROSE.
pub(super) const SOCKET_FAMILIES_BELOW: u64 = 12;

/// The address families a socket may have beyond those: all of Linux 6.18 but those that were removed from the kernel (DECnet, Econet,
/// ATM SVC, IrDA, WAN pipe), nobody needs in a container (IUCV, CAIF), or that reach past it: AF_ALG (the kernel's
/// cryptography, a source of holes) and AF_VSOCK (to the hypervisor, not divided into namespaces).
///
/// 32-bit programs reach all of them through `socketcall`, whose arguments no filter can follow.
pub(super) const SOCKET_FAMILIES: [u64; 25] =
    [13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44, 45];
