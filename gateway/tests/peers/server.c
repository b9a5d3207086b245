/* A Modbus RTU server by libmodbus on the serial port argv[1]: unit 1, eight inputs with the first on, eight coils. */
#include <modbus.h>
#include <stdio.h>

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    modbus_t *line = modbus_new_rtu(argv[1], 9600, 'N', 8, 1);
    modbus_mapping_t *held = modbus_mapping_new(8, 8, 0, 0);
    if (!line || !held || modbus_set_slave(line, 1) || modbus_connect(line)) {
        perror("libmodbus");
        return 1;
    }
    held->tab_input_bits[0] = 1;
    puts("ready");
    fflush(stdout);
    for (;;) {
        uint8_t request[MODBUS_RTU_MAX_ADU_LENGTH];
        int length = modbus_receive(line, request);
        if (length > 0) modbus_reply(line, request, length, held);
        else if (length < 0) modbus_flush(line);
    }
}
