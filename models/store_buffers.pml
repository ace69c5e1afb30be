/* Stores as x86-64 makes them (total store order): a store waits in its processor's buffer, in order, and is seen by
 * others when it leaves; a fence or a locked operation waits until the buffer is empty. Of the loads below none is of
 * a variable whose own store may still wait, so that no forwarding is modelled. A dead process' buffer drains too. */

byte memory[CELLS];
chan buffer[BUFFERS] = [2] of { byte, byte };      /* cell, value */
byte cell_, value_;

#define store(who, cell, value) buffer[who] ! cell, value
#define fence(who) empty(buffer[who])

proctype drain(byte who) {
end:
    do
    :: atomic { buffer[who] ? cell_, value_ -> memory[cell_] = value_ }
    od
}
