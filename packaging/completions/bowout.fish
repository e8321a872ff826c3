# Made from the definition of bowout's command line: BLESS=1 cargo test --bin bowout completions

complete -c bowout -n __bowout_before_command -s t -l grace -d 'From stop request to SIGKILL [8s or by engine]' -r -f
complete -c bowout -n __bowout_before_command -l stop-signal -d 'Signal sent first [the signal received]' -r -f -a "HUP\t''
INT\t''
QUIT\t''
ILL\t''
TRAP\t''
ABRT\t''
BUS\t''
FPE\t''
KILL\t''
USR1\t''
SEGV\t''
USR2\t''
PIPE\t''
ALRM\t''
TERM\t''
STKFLT\t''
CHLD\t''
CONT\t''
STOP\t''
TSTP\t''
TTIN\t''
TTOU\t''
URG\t''
XCPU\t''
XFSZ\t''
VTALRM\t''
PROF\t''
WINCH\t''
IO\t''
PWR\t''
SYS\t''"
complete -c bowout -n __bowout_before_command -l max-runtime -d 'Stop COMMAND after this time' -r -f
complete -c bowout -n __bowout_before_command -s k -l kill-mode -d 'Signals go to: process, mixed, group [mixed]' -r -f -a "process\t''
mixed\t''
group\t''"
complete -c bowout -n __bowout_before_command -s e -l remap-exit -d 'Exit with NEW [0] instead of CODE' -r -f
complete -c bowout -n __bowout_before_command -l grace-max -d 'Longest grace period that COMMAND can ask for by sd_notify [default: twice the grace period]' -r -f
complete -c bowout -n __bowout_before_command -l escalate -d 'Signals and waits in place of --grace and --stop-signal, e.g. TERM/30s/QUIT/5s/KILL' -r -f
complete -c bowout -n __bowout_before_command -l stop-on -d 'Signals that start the stop, and no others [default: TERM, INT, ABRT, a hang-up of the terminal, and the signal of --stop-signal or --escalate]' -r -f -a "HUP\t''
INT\t''
QUIT\t''
ILL\t''
TRAP\t''
ABRT\t''
BUS\t''
FPE\t''
USR1\t''
SEGV\t''
USR2\t''
PIPE\t''
ALRM\t''
TERM\t''
STKFLT\t''
CHLD\t''
CONT\t''
TSTP\t''
TTIN\t''
TTOU\t''
URG\t''
XCPU\t''
XFSZ\t''
VTALRM\t''
PROF\t''
WINCH\t''
IO\t''
PWR\t''
SYS\t''"
complete -c bowout -n __bowout_before_command -l on-repeat -d 'What a second request from the same side does [default: kill]' -r -f -a "kill\t''
forward\t''
ignore\t''"
complete -c bowout -n __bowout_before_command -l stop-delay -d 'Wait this long before the stop signal; part of the grace period, as the hooks are' -r -f
complete -c bowout -n __bowout_before_command -s r -l remap -l rewrite -d 'Forward TO when FROM is received; a TO of 0 drops it; repeatable, or with commas' -r -f
complete -c bowout -n __bowout_before_command -l exit-status -d 'How to exit after COMMAND died of signal S: with 128+S (\'code\') or of S (\'signal\') [default: auto, the same death unless PID 1]' -r -f -a "auto\t''
code\t''
signal\t''"
complete -c bowout -n __bowout_before_command -s p -l parent-death-signal -d 'Act as if the process that started bowout sent SIGNAL when it exits' -r -f -a "HUP\t''
INT\t''
QUIT\t''
ILL\t''
TRAP\t''
ABRT\t''
BUS\t''
FPE\t''
KILL\t''
USR1\t''
SEGV\t''
USR2\t''
PIPE\t''
ALRM\t''
TERM\t''
STKFLT\t''
CHLD\t''
CONT\t''
STOP\t''
TSTP\t''
TTIN\t''
TTOU\t''
URG\t''
XCPU\t''
XFSZ\t''
VTALRM\t''
PROF\t''
WINCH\t''
IO\t''
PWR\t''
SYS\t''"
complete -c bowout -n __bowout_before_command -l notify -d 'Pass sd_notify messages on if there is a NOTIFY_SOCKET (\'auto\'), always offer a socket (\'relay\'), send READY=1 when COMMAND is executed (\'exec\'), do nothing (\'off\') [default: auto]' -r -f -a "auto\t''
exec\t''
relay\t''
off\t''"
complete -c bowout -n __bowout_before_command -l ready -d 'How COMMAND reports that it is ready: a line on descriptor N (\'fd:N\'), or READY=1 by sd_notify (\'notify\')' -r -f
complete -c bowout -n __bowout_before_command -l ready-file -d 'Make FILE when COMMAND is ready; remove it at the first stop request' -r -F
complete -c bowout -n __bowout_before_command -l ready-timeout -d 'Stop COMMAND when it is not ready after this time; exit with 124' -r -f
complete -c bowout -n __bowout_before_command -l watchdog -d 'Stop COMMAND by SIGABRT when it has not sent WATCHDOG=1 by sd_notify for this time; exit with 124' -r -f
complete -c bowout -n __bowout_before_command -l replace-on -d 'Start a new instance of COMMAND when SIGNAL is received, and stop the old one once the new one is ready' -r -f -a "HUP\t''
INT\t''
QUIT\t''
ILL\t''
TRAP\t''
ABRT\t''
BUS\t''
FPE\t''
KILL\t''
USR1\t''
SEGV\t''
USR2\t''
PIPE\t''
ALRM\t''
TERM\t''
STKFLT\t''
CHLD\t''
CONT\t''
STOP\t''
TSTP\t''
TTIN\t''
TTOU\t''
URG\t''
XCPU\t''
XFSZ\t''
VTALRM\t''
PROF\t''
WINCH\t''
IO\t''
PWR\t''
SYS\t''"
complete -c bowout -n __bowout_before_command -l pre-stop -d 'Run this command before the stop signal, by /bin/sh -c if it needs a shell; repeatable, in order' -r -f -a "(__fish_complete_command)"
complete -c bowout -n __bowout_before_command -l pre-kill -d 'Run this command before SIGKILL (a thread dump), in the last quarter of the last wait; it delays nothing; repeatable' -r -f -a "(__fish_complete_command)"
complete -c bowout -n __bowout_before_command -l pre-kill-timeout -d 'Start --pre-kill this long before SIGKILL, at most a quarter of the last wait [default: 5s]' -r -f
complete -c bowout -n __bowout_before_command -l post-stop -d 'Run this command after COMMAND and its descendants have exited; repeatable, in order' -r -f -a "(__fish_complete_command)"
complete -c bowout -n __bowout_before_command -l report -d 'At the exit, write a JSON report to FILE; fd:N for an open descriptor, - for stdout' -r -F
complete -c bowout -n __bowout_before_command -l termination-log -d 'If FILE is empty, write to it why COMMAND ended [without FILE: /dev/termination-log]' -r -F
complete -c bowout -n __bowout_before_command -l log-format -d 'Form of the log lines [default: auto, \'journal\' on the journal, else \'text\']' -r -f -a "auto\t''
text\t''
journal\t''
json\t''"
complete -c bowout -n __bowout_before_command -l explain -d 'Print what happens at each moment of a stop, and start nothing'
complete -c bowout -n __bowout_before_command -s v -l verbose -d 'Log more; -vv everything'
complete -c bowout -n __bowout_before_command -s q -l quiet -d 'Log less; -qqq nothing'
complete -c bowout -n __bowout_before_command -l wait-tree -d 'Keep running until all descendants of COMMAND exit (for programs that daemonise)'
complete -c bowout -n __bowout_before_command -l stop-on-eof -d 'Stop COMMAND when the other end of its standard input is closed and COMMAND has read the rest'
complete -c bowout -n __bowout_before_command -l guard -d 'Stop COMMAND and its descendants even when bowout receives SIGKILL, by a second process of bowout'
complete -c bowout -n __bowout_before_command -s w -l warn-on-reap -d 'Log a warning for each orphan that is reaped'
complete -c bowout -n __bowout_before_command -s g -l group -d '--kill-mode group'
complete -c bowout -n __bowout_before_command -s c -l single-child -d '--kill-mode process'
complete -c bowout -n __bowout_before_command -s s -l subreaper -d 'Accepted for compatibility with tini: always on'
complete -c bowout -n __bowout_before_command -s h -l help -d 'Print this'
complete -c bowout -n __bowout_before_command -l help-all -d 'Print all options, and their variables'
complete -c bowout -n __bowout_before_command -s V -l version -d 'Print the version'

# The command and its arguments up to the cursor; fails at an option's value.
function __bowout_command
    set -l words (commandline -opc)
    argparse -s 't/grace=' 'stop-signal=' 'max-runtime=' 'k/kill-mode=' 'e/remap-exit=' 'explain' 'v/verbose' 'q/quiet' 'grace-max=' 'escalate=' 'stop-on=' 'on-repeat=' 'stop-delay=' 'wait-tree' 'r/remap=' 'rewrite=' 'exit-status=' 'p/parent-death-signal=' 'stop-on-eof' 'guard' 'notify=' 'ready=' 'ready-file=' 'ready-timeout=' 'watchdog=' 'replace-on=' 'pre-stop=' 'pre-kill=' 'pre-kill-timeout=' 'post-stop=' 'report=' 'termination-log=?' 'log-format=' 'w/warn-on-reap' 'g/group' 'c/single-child' 's/subreaper' 'h/help' 'help-all' 'V/version' -- $words[2..] 2>/dev/null
    or return
    set -q argv[1]
    and string join -- \n $argv
    return 0
end

function __bowout_before_command
    set -l words (__bowout_command)
    test -z "$words"
end

function __bowout_complete_command
    set -l words (__bowout_command)
    and complete --do-complete=(string join -- ' ' (string escape -- $words) (commandline -ct))
end

complete -c bowout -x -a '(__bowout_complete_command)'
