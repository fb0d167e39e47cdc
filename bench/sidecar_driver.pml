/*
 * The sidecar driver's protocol in Promela, for a side-by-side with exitbox on the same question: VPS processors, one
 * round each, every interleaving, sequential consistency. The steps are those of lib/sidecar/driver and of
 * lib/sidecar/kernel/command_loop.ts, one atomic action each: a condition wait puts itself on the queue and looks in one.
 *
 *   spin -a -DVPS=3 bench/sidecar_driver.pml
 *   gcc -O2 -DSAFETY -DNOREDUCE -DVECTORSZ=2048 -o pan pan.c && ./pan -m1000000 -w26
 *
 * Without -DNOREDUCE spin uses its own partial-order reduction, which leaves nothing out here (8,148,778 states again: all
 * that the processes do is global to it). exitbox's persistent sets leave 425,662 of its 6,740,406 states: `exitbox explore
 * sidecar-completion:vps=3`, without --reductions. -DBROKEN is the driver's first version.
 *
 * Side by side, three processors, one round, nothing pruned but states that were seen, assertions and deadlocks (seconds of
 * processor time, one run after the other; the two models differ in what they count as a state of its own, such as the end
 * of a process). Livelocks, for which spin would need another run, take exitbox to 27 s.
 *
 *   spin 6.5.2, -O2       no errors                 8,148,778 states  39,807,892 transitions  13.2 s  616,000 states/s
 *   exitbox, Deno 2.9.6   holds                     6,740,406 states  32,505,246 transitions  14.5 s  465,000 states/s
 *   spin, -DBROKEN        assertion violated: completed[i] == begun[i]
 *   exitbox               no-fabricated-completion is violated (with the first version's three policy values)
 *
 *   exitbox explore sidecar-completion:vps=3 --reductions fingerprints --property no-fabricated-completion \
 *       --property page-ownership --property exactly-once --property no-vmm-crash --property no-lost-wakeup \
 *       --property no-deadlock
 */

#ifndef VPS
#define VPS 2
#endif
#ifdef BROKEN
#define STARTS_VISIBLY 1
#define REARMS 0
#define STATUS_FIRST 1
#else
#define STARTS_VISIBLY 0
#define REARMS 1
#define STATUS_FIRST 0
#endif

#define IDLE 1
#define RUN 2
#define AVAILABLE 0
#define ASYNC 2
#define ASYNC_STOPPED 4
#define ASYNC_STARTING 5
#define STOPPED 0
#define RUNNING 1
#define FINISHED 2

byte cpu_status[VPS];
byte vp_state[VPS];
byte run_state[VPS];
bit due[VPS];        /* a start is announced and its interrupt not sent: policy sidecar.start-ipi absorbed */
bit requested[VPS];  /* the request interrupt is pending */
byte begun[VPS];
byte completed[VPS];
byte num_vps_stopped;
bit needs_attention;
bit needs_vp_scan;
bit scan_mutex;
bit response_irr;
bit handler_active;
bit asleep;          /* the reader is on the wait queue */
bit panicked;
byte finished;

/* no-fabricated-completion, looked at wherever a run is reported complete */
#define REPORTED(i) assert(completed[i] == begun[i])
/* page-ownership */
#define OWNED(i) assert(cpu_status[i] != RUN)

proctype starter(byte i) {
  /* client.run.write-command is part of the initial state */
  atomic { vp_state[i] == AVAILABLE -> vp_state[i] = (STARTS_VISIBLY -> ASYNC : ASYNC_STARTING) };
  d_step { due[i] = 1; assert(cpu_status[i] == IDLE); cpu_status[i] = RUN };
  d_step { requested[i] = 1; due[i] = 0 };
#if STARTS_VISIBLY == 0
  vp_state[i] = ASYNC;
#endif
#if REARMS
  atomic { if :: cpu_status[i] == IDLE -> skip :: else -> goto waiting fi };
  needs_vp_scan = 1;
  asleep = 0;
#endif
waiting:
  atomic { run_state[i] == FINISHED -> OWNED(i); run_state[i] = STOPPED; finished++ };
}

proctype reader() {
  byte i;
again:
  atomic {
    !handler_active;
    if
    :: needs_vp_scan -> goto scan
    :: else -> goto wait
    fi
  };
scan:
  atomic { !handler_active -> needs_vp_scan = 0 };
  atomic { !handler_active && !scan_mutex -> scan_mutex = 1; i = 0 };
next:
#if STATUS_FIRST
  atomic { !handler_active -> if :: cpu_status[i] != IDLE -> goto skipped :: else fi };
  atomic { !handler_active -> if :: vp_state[i] != ASYNC -> goto skipped :: else fi };
#else
  atomic { !handler_active -> if :: vp_state[i] != ASYNC -> goto skipped :: else fi };
  atomic { !handler_active -> if :: cpu_status[i] != IDLE -> goto skipped :: else fi };
#endif
  atomic { !handler_active -> vp_state[i] = ASYNC_STOPPED; REPORTED(i) };
  atomic { !handler_active -> num_vps_stopped++; goto skipped };
skipped:
  atomic {
    i++;
    if
    :: i < VPS -> goto next
    :: else -> i = 0; scan_mutex = 0
    fi
  };
wait:
end_wait:
  atomic {
    !handler_active && !asleep;
    if
    :: num_vps_stopped > 0 -> i = 0; goto find
    :: num_vps_stopped == 0 && needs_vp_scan -> goto again
    :: else -> asleep = 1; goto wait
    fi
  };
find:
  atomic {
    !handler_active;
    if
    :: vp_state[i] == ASYNC_STOPPED -> goto found
    :: else ->
      i++;
      if
      :: i < VPS -> goto find
      :: else -> i = 0; goto again
      fi
    fi
  };
found:
  atomic { !handler_active -> num_vps_stopped-- };
  atomic { !handler_active -> vp_state[i] = AVAILABLE };
  atomic {
    !handler_active;
    if
    :: run_state[i] == RUNNING -> run_state[i] = FINISHED; REPORTED(i); i = 0; goto again
    :: else -> panicked = 1; assert(false)
    fi
  }
}

proctype handler() {
end_idle:
  do
  :: atomic {
      response_irr -> response_irr = 0;
      if
      :: needs_attention -> handler_active = 1
      :: else -> goto end_idle
      fi
    };
    needs_vp_scan = 1;
    needs_attention = 0;
    d_step { asleep = 0; handler_active = 0 }
  od
}

proctype processor(byte i) {
end_parked:
  do
  :: atomic {
      requested[i] && !due[i] -> requested[i] = 0;
      if
      :: cpu_status[i] == RUN -> skip
      :: else -> goto end_parked
      fi
    };
    cpu_status[i] != 0; /* sidecar.run.load-status: VTL0 runs and makes its intercept */
    d_step { completed[i]++; cpu_status[i] = IDLE };
    needs_attention = 1;
    response_irr = 1
  od
}

init {
  byte i;
  atomic {
    for (i : 0 .. VPS - 1) {
      cpu_status[i] = IDLE;
      run_state[i] = RUNNING;
      begun[i] = 1;
      run starter(i);
      run processor(i)
    }
    i = 0;
    run reader();
    run handler()
  };
  /* no-deadlock, no-lost-wakeup: an end in which a starter waits is invalid; this waits for all */
  finished == VPS
}
