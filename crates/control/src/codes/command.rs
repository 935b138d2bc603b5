//! 7xxx: API and input. 8xxx: jobs, configuration, demo. 9xxx: internal.

codes! {
    7400 BAD_INPUT Error, exit Usage, http 400, since "0.1.0" {
        what: "A value given makes no sense here.",
        why: "It has the wrong form, is out of range, or contradicts another one; the message names it.",
        act: ["see the allowed values: vmhold help COMMAND"],
        urgency: "nothing was changed",
        clears: "the value is corrected",
        parameters: ["field", "value", "allowed"],
    }
    7401 LOGIN_REQUIRED Error, exit NotAllowed, http 401, since "0.1.0" {
        what: "The request comes without a token or session that works.",
        why: "None was given, it has ended, it was deleted, or the appliance has started again since a browser logged in.",
        act: ["on the store's machine: vmhold ui prints an address that logs a browser in", "for a tool: vmhold token create NAME --role viewer", "from elsewhere: --token-file FILE"],
        urgency: "nothing was changed",
        clears: "a token or login that works is given",
        parameters: [],
    }
    7403 ROLE_MISSING Error, exit NotAllowed, http 403, since "0.1.0" {
        what: "The role of this token or session does not allow the step.",
        why: "Viewers look, operators make daily changes, admins do everything, also what destroys data.",
        act: ["use a token of the role the message names", "see the roles: vmhold token list"],
        urgency: "nothing was changed",
        clears: "a token of that role is used",
        parameters: ["role", "needed"],
    }
    7404 NOT_FOUND Error, exit NotFound, http 404, since "0.1.0" {
        what: "There is no object of that name.",
        why: "The name is misspelt, the object is gone, or the command talks to another appliance.",
        act: ["list what there is with the `list` command of that noun"],
        urgency: "nothing was changed",
        clears: "an existing object is named",
        parameters: ["kind", "name"],
    }
    7405 NO_SUCH_CALL Error, exit Usage, http 405, since "0.1.0" {
        what: "The API has no such call.",
        why: "The path exists for other methods, or belongs to another version.",
        act: ["compare versions: vmhold version"],
        urgency: "nothing was changed",
        clears: "an existing call is made",
        parameters: ["method", "path"],
    }
    7409 CONFLICT Error, exit Refused, http 409, since "0.1.0" {
        what: "The step conflicts with the present state.",
        why: "Something else is going on, or the object is not in the state the step needs; the message says which.",
        act: ["look at the present state: vmhold status", "run the command again when it has changed"],
        urgency: "nothing was changed",
        clears: "the state allows the step",
        parameters: ["object", "state"],
    }
    7410 INSECURE_BIND Error, exit Refused, http 409, since "0.1.0" {
        what: "A service refuses to listen on an address others can reach.",
        why: "It has no login, or is a demo; anyone on that network could read and destroy its data.",
        act: ["leave the address away: loopback is the default", "if the network is yours alone: --i-understand-insecure, where the command has it"],
        urgency: "nothing was changed",
        clears: "a loopback address is used, or the risk is accepted",
        parameters: ["address"],
    }
    7412 CHANGED_ELSEWHERE Error, exit Refused, http 412, since "0.1.0" {
        what: "The object was changed by someone else since it was looked at.",
        why: "The If-Match of the request names settings that are no longer those of the object.",
        act: ["look again, then decide again"],
        urgency: "nothing was changed",
        clears: "the request names the present settings",
        parameters: ["object"],
    }
    7428 CONFIRMATION_MISSING Error, exit Declined, http 428, since "0.1.0" {
        what: "The step destroys data and was not confirmed.",
        why: "Severe steps need the name of the object as confirmation, typed or with --confirm=NAME.",
        act: ["look at what would be lost: vmhold datastore show NAME", "confirm: add --confirm=NAME"],
        urgency: "nothing was changed",
        clears: "the name is given",
        parameters: ["object"],
    }
    7429 TOO_MANY_TRIES Error, exit NotAllowed, http 429, since "0.1.0" {
        what: "Too many logins failed.",
        why: "Someone guesses, or a tool uses an old token again and again. Logins are refused for up to a minute; tokens go on working.",
        act: ["wait a minute", "see from where: vmhold audit list"],
        urgency: "none unless nobody of yours is trying",
        clears: "a minute passes without a failed login",
        parameters: [],
    }
    7501 NOT_SUPPORTED Error, exit Refused, http 422, since "0.1.0" {
        what: "This version cannot do that yet.",
        why: "The command is part of the design and not of this version.",
        act: ["see what this version does: vmhold help"],
        urgency: "nothing was changed",
        clears: "a version that can do it is installed",
        parameters: ["feature"],
    }
    7503 SERVER_UNREACHABLE Error, exit Unreachable, http 503, since "0.1.0" {
        what: "The appliance does not answer.",
        why: "It is not running, still starting, or listens elsewhere.",
        act: ["start it: vmhold quickstart resume", "name its folder: vmhold status --dir DIR", "read the last lines of its log"],
        urgency: "now, if it should be serving",
        clears: "the appliance answers",
        parameters: ["address", "reason"],
    }
    7504 TIMED_OUT Error, exit TimedOut, http 504, since "0.1.0" {
        what: "The answer did not come in time; the work goes on.",
        why: "The step takes longer than the time given with --timeout.",
        act: ["look again: vmhold status", "wait longer: --timeout 5m"],
        urgency: "none",
        clears: "the step is done",
        parameters: ["step", "seconds"],
    }
    8001 DEMO_NOT_FOUND Error, exit NotFound, http 404, since "0.1.0" {
        what: "There is no demo in that folder.",
        why: "The folder does not exist or holds no manifest of a demo.",
        act: ["start one: vmhold quickstart", "name the folder: --dir DIR"],
        urgency: "nothing was changed",
        clears: "the folder of a demo is named",
        parameters: ["dir"],
    }
    8002 FOLDER_NOT_EMPTY Error, exit Refused, http 409, since "0.1.0" {
        what: "The folder holds files that are not of a demo.",
        why: "A demo only starts in an empty or new folder, so that removing it later can touch nothing else.",
        act: ["name another folder: vmhold quickstart --dir ./vmhold-demo-2"],
        urgency: "nothing was changed",
        clears: "an empty or new folder is named",
        parameters: ["dir"],
    }
    8003 DEMO_RUNNING Error, exit Refused, http 409, since "0.1.0" {
        what: "The demo in that folder is already running.",
        why: "One folder holds one demo, and one process owns its drives.",
        act: ["use it: vmhold status --dir DIR", "or stop it first: vmhold quickstart destroy --dir DIR"],
        urgency: "nothing was changed",
        clears: "the running demo is stopped",
        parameters: ["dir", "pid"],
    }
    8004 DEMO_NOT_RUNNING Error, exit Unreachable, http 503, since "0.1.0" {
        what: "The demo in that folder is not running.",
        why: "It was stopped or killed. Its data is still there.",
        act: ["start it again: vmhold quickstart resume --dir DIR"],
        urgency: "none",
        clears: "the demo runs",
        parameters: ["dir"],
    }
    8005 NOT_OURS_TO_REMOVE Error, exit Refused, http 409, since "0.1.0" {
        what: "The folder holds files the demo did not create.",
        why: "Removing a demo removes only the files in its manifest; the folder itself stays because of the others.",
        act: ["look at them and remove them yourself"],
        urgency: "none",
        clears: "the other files are gone",
        parameters: ["dir", "files"],
    }
    8006 HOST_DISK_FULL Error, exit Failed, http 507, since "0.1.0" {
        what: "The disk below the drives is full.",
        why: "File drives are sparse and grow as they are written; the disk they lie on has no room left.",
        act: ["free space on that disk", "or use a smaller demo: vmhold quickstart --size 256MiB"],
        urgency: "now, if the demo is in use",
        clears: "the disk has room",
        parameters: ["path", "needed_bytes", "free_bytes"],
    }
    8007 PATH_UNUSABLE Error, exit Failed, http 500, since "0.1.0" {
        what: "A file or folder cannot be used.",
        why: "It is missing, not readable or writable for this user, or of the wrong kind; the message has the system's words.",
        act: ["check path and rights: ls -ld PATH"],
        urgency: "nothing was changed",
        clears: "the path can be used",
        parameters: ["path", "reason"],
    }
    8008 CHECK_FAILED Error, exit Failed, http 500, since "0.1.0" {
        what: "A check found acknowledged writes that are lost, stale or misplaced.",
        why: "What the server returned is not what it acknowledged. This is the one thing vmhold must never do.",
        act: ["stop using this store for anything of value", "keep the folder and the output as they are, and report it"],
        urgency: "now",
        clears: "it does not clear by itself",
        parameters: ["lost", "stale", "misplaced"],
    }
    8009 CONFIG_UNREADABLE Error, exit Usage, http 400, since "0.1.0" {
        what: "The configuration cannot be understood.",
        why: "A line has the wrong form, or a key is unknown; the message names file and line.",
        act: ["correct that line", "see the keys: vmhold help serve"],
        urgency: "nothing was changed",
        clears: "the configuration is corrected",
        parameters: ["path", "line", "reason"],
    }
    8041 SERVER_STARTED Info, exit Failed, http 503, since "0.1.0" {
        what: "The server started and serves its datastores.",
        why: "It was asked to.",
        act: ["nothing"],
        urgency: "none",
        clears: "it is an event, not a condition",
        parameters: ["version", "seconds"],
    }
    8042 SERVER_STOPPED Info, exit Failed, http 503, since "0.1.0" {
        what: "The server wrote a checkpoint and stopped.",
        why: "It was asked to.",
        act: ["nothing; start it again when it is needed"],
        urgency: "none",
        clears: "it is an event, not a condition",
        parameters: ["signal", "seconds"],
    }
    8043 CHANGE_MADE Info, exit Failed, http 503, since "0.1.0" {
        what: "Someone changed something through the API.",
        why: "It was asked for; the audit log says by whom and from where.",
        act: ["nothing", "see who: vmhold audit list"],
        urgency: "none",
        clears: "it is an event, not a condition",
        parameters: ["action", "who"],
    }
    8051 BENCH_TARGET Error, exit Failed, http 502, since "0.1.0" {
        what: "The server under test does not do what the load generator asks.",
        why: "It refused the mount, lacks a procedure, or answered with an error; the message has its words.",
        act: ["check the address: vmhold bench --target nfs://HOST:PORT/EXPORT --mountport PORT"],
        urgency: "none",
        clears: "the server answers as NFSv3 says",
        parameters: ["target", "reason"],
    }
    8061 AUDIT_UNWRITABLE Error, exit Failed, http 500, since "0.1.0" {
        what: "The audit log cannot be written, so nothing may be changed through the API.",
        why: "The disk below the state folder is full or fails, or the folder is not writable. Datastores are served all the same.",
        act: ["make room on that disk: df -h", "check the folder: ls -ld control"],
        urgency: "today",
        clears: "the log can be written again",
        parameters: ["reason"],
    }
    8062 AUDIT_BROKEN Error, exit Failed, http 500, since "0.1.0" {
        what: "The audit log does not hang together.",
        why: "A line was changed, removed or put in after it was written, or the disk damaged it.",
        act: ["see where: vmhold audit verify", "compare with a copy, and find out who had access to the machine"],
        urgency: "today",
        clears: "it does not clear by itself; the file is set aside by hand",
        parameters: ["line"],
    }
    9001 BUG Error, exit Failed, http 500, since "0.1.0" {
        what: "Something in vmhold itself is wrong.",
        why: "An assumption of the program does not hold. It stops rather than go on with it; acknowledged writes are in the journal.",
        act: ["start again: vmhold quickstart resume, or restart the service", "report it with the message, the version and the log"],
        urgency: "now",
        clears: "a version without the defect is installed",
        parameters: ["place", "message"],
    }
}
