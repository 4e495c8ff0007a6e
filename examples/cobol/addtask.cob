*> Makes one video appointment with the arctos library, from a record of fixed-length fields. For GnuCOBOL 3.
*>
*>     ARCTOS_TOKEN=... addtask BASE-URL OUT-TASK-NUM [CA-FILE]
*>
*> OUT-TASK-NUM is the caller's own number of the appointment. CA-FILE (PEM) holds the authorities to trust
*> instead of the system's. Every text is UTF-8. The token comes from the environment, since other users of the
*> machine can read a program's arguments.
*>
*> The server's task number is the only thing on standard output; everything else goes to standard error.
*>
*> RETURN-CODE  0  the appointment was made
*>              2  it was not made: trying again is safe
*>              3  unknown: it may have been made; find out before trying again
*>              4  it was made, but its number could not be had or printed
*> Any other end, such as a signal, says no more than 3.

identification division.
program-id. addtask.

data division.
working-storage section.

*> The appointment as a file or another program hands it over: fixed lengths, filled up with blanks.
01  appointment.
    05  business-id         pic 9(8)  value 15.
    05  out-task-num        pic x(40).
    05  task-type           pic x(10) value "normal".
    05  branch-code         pic x(10) value "943".
    05  room-type           pic x(10) value "normal".
    05  task-time           pic x(25).
    05  task-remark         pic x(60) value "Housing loan, first talk".

*> Where the server's number of it goes.
01  task-num                pic x(20).

01  base-url                pic x(1024).
01  ca-file                 pic x(1024) value spaces.
*> One more than the longest token, so that one that was cut is refused and not sent.
01  token                   pic x(8193) value spaces.

78  made                    value 0.
78  not-made                value 2.
78  maybe-made              value 3.
78  made-without-number     value 4.
01  exit-code               binary-long value made.

*> arctos.h, as far as it is needed here: arctos_code, arctos_outcome_code, int32_t and uint32_t are BINARY-LONG,
*> all else is a POINTER.
78  arctos-abi              value 1.
78  arctos-ok               value 0.
78  arctos-not-created      value 0.
78  arctos-created          value 1.
01  abi-version             binary-long unsigned.
01  arctos-code             binary-long value arctos-ok.
01  step-code               binary-long.
01  outcome                 binary-long.
01  client                  pointer value null.
01  config                  pointer value null.
01  task                    pointer value null.
01  answer                  pointer value null.
01  found-text              pointer value null.
01  static-text             pointer value null.
*> The encoding of every field here: NULL stands for UTF-8.
01  utf-8                   pointer value null.
78  blank-pad               value 32.

01  argument-count          binary-long.
01  argument                pic x(4096).

01  now.
    05  now-date            pic 9(8).
    05  now-day redefines now-date.
        10  now-year        pic x(4).
        10  now-month       pic x(2).
        10  now-mday        pic x(2).
    05  now-hour            pic x(2).
    05  now-minute          pic x(2).
    05  now-second          pic x(2).
    05  filler              pic x(2).
    05  now-zone-hour       pic x(3).
    05  now-zone-minute     pic x(2).

*> A number as JSON: no zeros before it, which JSON does not allow, and a NUL after it.
01  business-id-json.
    05  business-id-edited  pic z(7)9.
    05  filler              pic x value x"00".

01  json-pointer            pic x(32).
01  found-field             pic x(1000).
01  found-length            binary-long.
01  code-name               pic x(32).
01  reason                  pic x(80).
01  outcome-word            pic x(11).
01  message-line            pic x(2400).
01  message-end             binary-long.
78  control-characters      value x"000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F7F".
01  all-streams             pointer value null.

procedure division.
    perform read-arguments
    if exit-code = made
        perform open-client
    end-if
    if exit-code = made
        perform add-task
    end-if
    call static "arctos_client_free" using by value client returning omitted
    move exit-code to return-code
    goback.

read-arguments.
    accept argument-count from argument-number
    if argument-count < 2 or argument-count > 3
        display "usage: ARCTOS_TOKEN=... addtask BASE-URL OUT-TASK-NUM [CA-FILE]" upon syserr
        move not-made to exit-code
        exit paragraph
    end-if
    *> An argument that its field cuts would be another server, or another number.
    accept argument from argument-value
    move argument to base-url
    if base-url not = argument
        move "BASE-URL" to reason
        perform refuse-argument
    end-if
    accept argument from argument-value
    move argument to out-task-num
    if out-task-num not = argument
        move "OUT-TASK-NUM" to reason
        perform refuse-argument
    end-if
    if argument-count = 3
        accept argument from argument-value
        move argument to ca-file
        if ca-file not = argument
            move "CA-FILE" to reason
            perform refuse-argument
        end-if
    end-if
    accept token from environment "ARCTOS_TOKEN".

refuse-argument.
    display function trim(reason trailing) " is longer than its field (outcome: not_created)" upon syserr
    move not-made to exit-code.

*> Makes the client. Nothing is sent here, so whatever fails, no appointment was made.
open-client.
    *> A header and a library of two different interfaces must not meet.
    call static "arctos_abi_version" returning abi-version
    if abi-version not = arctos-abi
        display "the arctos library does not fit this program (outcome: not_created)" upon syserr
        move not-made to exit-code
        exit paragraph
    end-if

    call static "arctos_json_set_field" using by reference config by reference z"/base_url"
        by reference base-url by value length of base-url by value utf-8 returning step-code
    perform note-step
    *> Without a token the library itself says what is missing, at the call.
    if token not = spaces
        call static "arctos_json_set_field" using by reference config by reference z"/token"
            by reference token by value length of token by value utf-8 returning step-code
        perform note-step
    end-if
    if ca-file not = spaces
        call static "arctos_json_set" using by reference config by reference z"/tls"
            by reference z'{"roots":"file"}' returning step-code
        perform note-step
        call static "arctos_json_set_field" using by reference config by reference z"/tls/ca_file"
            by reference ca-file by value length of ca-file by value utf-8 returning step-code
        perform note-step
    end-if

    if arctos-code = arctos-ok
        call static "arctos_client_new" using by value config by reference client by reference answer
            returning arctos-code
    end-if
    if arctos-code not = arctos-ok
        move arctos-not-created to outcome
        move "no configuration: is every argument UTF-8?" to reason
        perform report-failure
    end-if
    perform free-answer
    *> arctos_free wipes what it releases; the token's field is this program's to wipe.
    call static "arctos_free" using by value config returning omitted
    move spaces to token.

add-task.
    perform build-task
    if arctos-code not = arctos-ok
        move arctos-not-created to outcome
        move "no task: is its number UTF-8?" to reason
        perform report-failure
    else
        call static "arctos_task_add" using by value client by value task by reference answer
            returning arctos-code
        if arctos-code = arctos-ok
            perform take-number
        else
            call static "arctos_outcome" using by value arctos-code by value answer returning outcome
            move "no memory to say more" to reason
            perform report-failure
        end-if
    end-if
    perform free-answer
    call static "arctos_free" using by value task returning omitted.

*> The record becomes a task. Blanks at the end of a field are left out, those inside it stay, and whatever stands in
*> a field is escaped, so that no quote in it can change what is sent.
build-task.
    perform set-time-to-tomorrow
    move business-id to business-id-edited
    call static "arctos_json_set" using by reference task by reference z"/business_id"
        by reference business-id-json returning step-code
    perform note-step
    call static "arctos_json_set_field" using by reference task by reference z"/out_task_num"
        by reference out-task-num by value length of out-task-num by value utf-8 returning step-code
    perform note-step
    call static "arctos_json_set_field" using by reference task by reference z"/task_type"
        by reference task-type by value length of task-type by value utf-8 returning step-code
    perform note-step
    call static "arctos_json_set" using by reference task by reference z"/task_notify"
        by reference z"false" returning step-code
    perform note-step
    call static "arctos_json_set_field" using by reference task by reference z"/task_time"
        by reference task-time by value length of task-time by value utf-8 returning step-code
    perform note-step
    call static "arctos_json_set_field" using by reference task by reference z"/task_remark"
        by reference task-remark by value length of task-remark by value utf-8 returning step-code
    perform note-step
    call static "arctos_json_set_field" using by reference task by reference z"/branch_code"
        by reference branch-code by value length of branch-code by value utf-8 returning step-code
    perform note-step
    call static "arctos_json_set_field" using by reference task by reference z"/room_type"
        by reference room-type by value length of room-type by value utf-8 returning step-code
    perform note-step
    call static "arctos_json_set" using by reference task by reference z"/video"
        by reference z"true" returning step-code
    perform note-step.

*> Keeps the first code that is a failure.
note-step.
    if arctos-code = arctos-ok
        move step-code to arctos-code
    end-if.

*> The same time tomorrow, with this machine's offset from UTC.
set-time-to-tomorrow.
    move function current-date to now
    move function date-of-integer(function integer-of-date(now-date) + 1) to now-date
    string now-year "-" now-month "-" now-mday "T" now-hour ":" now-minute ":" now-second
        now-zone-hour ":" now-zone-minute delimited by size into task-time.

*> Copies the number into its field and prints it, and says so when the answer carries a warning.
take-number.
    move z"/status" to json-pointer
    perform find-text
    perform show-found
    *> The server may write its status as 2 or as "2"; the text is the same.
    if found-field = "2"
        move z"/message" to json-pointer
        perform find-text
        perform show-found
        if found-length = 0
            move "the server gives no reason" to found-field
        end-if
        display "warning: " function trim(found-field trailing) " (outcome: created)" upon syserr
    end-if

    move z"/info/task_num" to json-pointer
    perform find-text
    call static "arctos_text_copy" using by value found-text by value utf-8
        by reference task-num by value length of task-num by value blank-pad returning found-length
    inspect task-num converting control-characters to spaces
    *> The length is that of the whole number, also when its field is too short for it.
    evaluate true
        when found-length <= 0
            display "the task number could not be had (outcome: created)" upon syserr
            move made-without-number to exit-code
        when found-length > length of task-num
            perform show-found
            display "the task number " function trim(found-field trailing)
                " is longer than its field (outcome: created)" upon syserr
            move made-without-number to exit-code
        when other
            perform print-number
    end-evaluate
    perform free-found.

*> DISPLAY does not tell whether the number got anywhere. C's fflush does, of what DISPLAY has left to it, which is
*> nothing unless NO ADVANCING is said. It is not STATIC, since for cobc's C code it has types of its own.
print-number.
    display function trim(task-num trailing) x"0a" with no advancing
    call "fflush" using by value all-streams returning step-code
    if step-code not = 0
        display "the task number " function trim(task-num trailing) " could not be printed (outcome: created)"
            upon syserr
        move made-without-number to exit-code
    end-if.

*> Tells what failed, by ARCTOS-CODE, ANSWER and OUTCOME; where there is no document, REASON stands in.
*> Codes tell why it failed; only the outcome tells whether the appointment may exist. New codes may come with a
*> newer library, and this needs no change for them.
report-failure.
    evaluate outcome
        when arctos-not-created
            move "not_created" to outcome-word
            move not-made to exit-code
        when arctos-created
            move "created" to outcome-word
            move made-without-number to exit-code
        when other
            move "unknown" to outcome-word
            move maybe-made to exit-code
    end-evaluate

    call static "arctos_code_name" using by value arctos-code returning static-text
    call static "arctos_text_copy" using by value static-text by value utf-8
        by reference code-name by value length of code-name by value blank-pad returning found-length
    move z"/message" to json-pointer
    perform find-text
    perform show-found
    if found-length = 0
        move reason to found-field
    end-if
    move spaces to message-line
    move 1 to message-end
    string function trim(code-name trailing) ": " function trim(found-field trailing) delimited by size
        into message-line with pointer message-end
    move z"/server_message" to json-pointer
    perform find-text
    perform show-found
    if found-length > 0
        string "; the server says: " function trim(found-field trailing) delimited by size
            into message-line with pointer message-end
    end-if
    string " (outcome: " function trim(outcome-word trailing) ")" delimited by size
        into message-line with pointer message-end
    display function trim(message-line trailing) upon syserr.

*> The text at JSON-POINTER in ANSWER, into FOUND-TEXT, to be released by FREE-FOUND; NULL when there is none.
find-text.
    call static "arctos_json_get" using by value answer by reference json-pointer by reference found-text
        returning step-code
    if step-code not = arctos-ok
        *> Of a failure the text is an error document, and is released too.
        perform free-found
    end-if.

*> Copies what was found into FOUND-FIELD as it may be shown, and releases it. NULL gives blanks and the length 0.
show-found.
    call static "arctos_text_copy" using by value found-text by value utf-8
        by reference found-field by value length of found-field by value blank-pad returning found-length
    perform free-found
    *> What a server says must neither break the line nor command the terminal.
    inspect found-field converting control-characters to spaces.

free-found.
    call static "arctos_free" using by value found-text returning omitted
    set found-text to null.

free-answer.
    call static "arctos_free" using by value answer returning omitted
    set answer to null.
